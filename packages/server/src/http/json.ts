import { isUtf8 } from "node:buffer";
import { setImmediate } from "node:timers/promises";
import {
  branchFaults,
  clearestIssue,
  HoneError,
  issueWords,
  maxBodyBytes,
  pathText,
  wellFormedSteps,
  type ErrorCode,
} from "@hone/core";
import type { Context } from "hono";
import type { z } from "zod";
import { checkShape } from "./body-shape.ts";
import type { AppEnv } from "./env.ts";
import { faultsOfParts } from "./schema-parts.ts";

const mebibyte = 1024 * 1024;
/** The only way in for a JSON body: media type, size, UTF-8, JSON and schema are checked here. */
export async function readJson<S extends z.ZodType>(
  c: Context<AppEnv>,
  schema: S,
): Promise<z.output<S>> {
  requireJsonType(c);
  const bytes = await readBytes(c, c.get("bodyLimit") ?? maxBodyBytes);
  const value = await readValue(bytes);
  const faults = await faultsOfParts(schema, value);
  if (faults.length > 0) throw issuesToError(faults);
  if (bytes.byteLength >= patientFrom) await setImmediate();
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw issuesToError(result.error.issues);
}

export const protobufType = "application/x-protobuf";

/** The bytes of a protocol buffers message. What they mean is for the caller to check. */
export async function readProtobuf(c: Context<AppEnv>): Promise<Uint8Array> {
  if (!isProtobuf(c)) {
    throw new HoneError(`Send the body as "content-type: ${protobufType}".`, {
      code: "unsupported_media_type",
    });
  }
  return await readBytes(c, c.get("bodyLimit") ?? maxBodyBytes);
}

/** Like JSON, it cannot come from a web page without a preflight. */
export function isProtobuf(c: Context<AppEnv>): boolean {
  const type = c.req.header("content-type") ?? "";
  if (essenceOf(type) !== protobufType) return false;
  requirePlain(c, type);
  return true;
}

function essenceOf(type: string): string {
  return type.split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

/** A form or a text body could come from any web page; `application/json` cannot without a preflight. */
export function requireJsonType(c: Context<AppEnv>): void {
  const type = c.req.header("content-type") ?? "";
  const essence = essenceOf(type);
  const isJson = essence === "application/json" || /^application\/[\w.-]+\+json$/.test(essence);
  if (isJson) return requirePlain(c, type);
  throw new HoneError(
    `Send the body as "content-type: application/json"${essence ? `, not "${essence.slice(0, 80)}"` : ""}.`,
    { code: "unsupported_media_type" },
  );
}

/** Nothing is decompressed here, and JSON is UTF-8: another encoding would be read as something else. */
function requirePlain(c: Context<AppEnv>, type: string): void {
  const encoding = c.req.header("content-encoding")?.trim().toLowerCase() ?? "identity";
  if (encoding !== "identity" && encoding !== "") {
    throw new HoneError(
      `The body is encoded (content-encoding: ${encoding.slice(0, 40)}), which is not read. Send it as it is.`,
      { code: "unsupported_media_type" },
    );
  }
  const charset = /;\s*charset\s*=\s*"?([^";\s]+)/i.exec(type)?.[1]?.toLowerCase() ?? "utf-8";
  if (["utf-8", "utf8", "us-ascii", "ascii"].includes(charset)) return;
  throw new HoneError(`The body is in "${charset.slice(0, 40)}". Send JSON in UTF-8.`, {
    code: "unsupported_media_type",
  });
}

/** A body's time to arrive, and more by its size: 50 kB a second is a slow line. @unit ms */
const bodyMs = 60_000;
const bytesPerMs = 50;

/** Gives up a body that stops, or that comes byte by byte without end, and tells its sender why. */
async function readBytes(c: Context<AppEnv>, limit: number): Promise<Uint8Array> {
  const declared = Number(c.req.header("content-length") ?? 0);
  const allowedMs = (c.get("bodyMs") ?? bodyMs) + Math.min(declared, limit) / bytesPerMs;
  const { incoming, outgoing } = c.env ?? {};
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      c.header("connection", "close");
      outgoing?.once("finish", () => incoming?.destroy());
      const seconds = Math.round(allowedMs / 1000);
      reject(
        new HoneError(`The body did not arrive within ${seconds} s. Send it again, whole.`, {
          code: "timeout",
          status: 408,
        }),
      );
    }, allowedMs);
  });
  try {
    return await Promise.race([receive(c, limit), late]);
  } catch (cause) {
    if (HoneError.isInstance(cause)) throw cause;
    throw new HoneError("The client closed the connection within its body.", {
      code: "aborted",
      cause,
    });
  } finally {
    clearTimeout(timer);
  }
}

async function receive(c: Context<AppEnv>, limit: number): Promise<Uint8Array> {
  const declared = c.req.header("content-length");
  if (declared !== undefined && Number(declared) > limit) throw tooLarge(limit);
  // Node's parser holds a body to its Content-Length, so only the other kind has to be counted.
  if (declared !== undefined && c.req.header("transfer-encoding") === undefined) {
    const bytes = new Uint8Array(await c.req.arrayBuffer());
    if (bytes.byteLength > limit) throw tooLarge(limit);
    return bytes;
  }
  const body = c.req.raw.body;
  if (!body) return new Uint8Array();
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.byteLength;
    if (size > limit) throw tooLarge(limit);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function tooLarge(limit: number): HoneError {
  return new HoneError(
    `The body is larger than ${limit / mebibyte} MiB. Send less in one request.`,
    { code: "body_too_large" },
  );
}

/** A body of this size or more is read in steps, and other requests have their turn in between. @unit bytes */
const patientFrom = 128 * 1024;

/**
 * Strict JSON of strict UTF-8: a replaced character would be another prompt. Only half a character, which
 * JSON can escape and UTF-8 cannot hold, is replaced, before anything sees it.
 */
async function readValue(bytes: Uint8Array): Promise<unknown> {
  if (bytes.byteLength === 0) {
    throw new HoneError("The body is empty. Send a JSON object.", { code: "invalid_json" });
  }
  const pause = bytes.byteLength < patientFrom ? () => Promise.resolve() : () => setImmediate();
  await checkShape(bytes, pause);
  if (!isUtf8(bytes)) {
    throw new HoneError("The body is not valid UTF-8. Encode it as UTF-8.", {
      code: "invalid_json",
    });
  }
  await pause();
  let text = textOf(bytes);
  await pause();
  const steps = wellFormedSteps(text);
  let step = steps.next();
  for (; !step.done; step = steps.next()) await pause();
  text = step.value;
  await pause();
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    // V8's message quotes the text, which may be a prompt: only the position is passed on.
    const at = cause instanceof SyntaxError ? /position (\d+)/.exec(cause.message)?.[1] : undefined;
    const where = at === undefined ? "" : ` at character ${at}`;
    throw new HoneError(`The body is not valid JSON${where}. Send what JSON.stringify makes.`, {
      code: "invalid_json",
    });
  }
}

/** Takes off the byte order mark that some editors put in front. */
function textOf(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
  return text.startsWith("\ufeff") ? text.slice(1) : text;
}

type Issue = z.core.$ZodIssue;

/** The error for the first fault, which names its field. */
export function issuesToError(issues: readonly Issue[]): HoneError {
  const issue = clearestIssue(issues);
  if (!issue) return new HoneError("The body is not valid.", { code: "invalid_request" });
  const { path, code, message } = describe(issue, []);
  const param = pathText(path) || undefined;
  const text = param ? `${param}: ${message}` : message;
  return new HoneError(/[.!?]$/.test(text) ? text : `${text}.`, { code, param });
}

interface Fault {
  path: PropertyKey[];
  code: ErrorCode;
  message: string;
}

const unknownParameter =
  "Hone does not know this parameter, and ignores nothing in silence. Leave it out";
const knownElsewhere: Readonly<Record<string, string>> = {
  chat_template_kwargs:
    "all chats of a model have the same: leave it out, and make the model with it, " +
    "`hone.model({ name, chatTemplateKwargs })`",
  reasoning_effort:
    "how much a base thinks is for its template to say: leave it out, and make the model with what the template " +
    "knows, as `hone.model({ name, chatTemplateKwargs: { enable_thinking: false } })`",
  verbosity: "no base has it: leave it out, and say in the prompt how long answers shall be",
  web_search_options:
    "the server searches nothing: leave it out, and give the agent a tool that does",
  functions: "the old form of tools: send them as `tools`",
  function_call: "the old form of tool_choice: send it as `tool_choice`",
};

function describe(issue: Issue, prefix: readonly PropertyKey[]): Fault {
  const path = [...prefix, ...issue.path];
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0] ?? "";
    return {
      path: [...path, key],
      code: "unsupported_parameter",
      message: knownElsewhere[key] ?? unknownParameter,
    };
  }
  if (issue.code === "invalid_value") {
    const values = issue.values.map((value) => JSON.stringify(value)).join(", ");
    return {
      path,
      code: "unsupported_parameter",
      message: `this value is not supported. Use ${issue.values.length > 1 ? "one of " : ""}${values}, or leave it out`,
    };
  }
  if (issue.code === "invalid_union") {
    const candidates = branchFaults(issue);
    const deepest = candidates[0];
    if (deepest && deepest.path.length > 0) return describe(deepest, path);
    const expected = candidates.map((c) => ("expected" in c ? String(c.expected) : c.message));
    return {
      path,
      code: codeFor(path),
      message: expected.length
        ? `expected ${expected.join(" or ")}`
        : `${issue.message}. Use one of the documented kinds`,
    };
  }
  const words = issueWords(issue);
  return {
    path,
    code: codeFor(path),
    message: words === null ? issue.message : `${path.length > 0 ? "it" : "The body"} ${words}`,
  };
}

function codeFor(path: readonly PropertyKey[]): ErrorCode {
  return path.at(-1) === "reward" ? "invalid_reward" : "invalid_request";
}
