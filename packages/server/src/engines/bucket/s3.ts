import { createReadStream } from "node:fs";
import { HoneError } from "@hone/core";
import { AwsV4Signer } from "aws4fetch";
import { Agent, request as send, type Dispatcher } from "undici";
import { storeRule, type BucketPlace } from "./bucket-place.ts";

/** A bucket of any store that speaks S3. Requests carry no more than one object, and none is repeated. */
export interface S3 {
  /** The object's size, or null where there is none. @unit bytes */
  size(name: string, signal: AbortSignal): Promise<number | null>;
  /** The store compares what comes with the digest, and refuses other bytes. */
  put(name: string, body: S3Body, signal: AbortSignal): Promise<void>;
  remove(name: string, signal: AbortSignal): Promise<void>;
  /** A URL by which anybody can read the object for so long. @param seconds how long */
  readableURL(name: string, seconds: number): Promise<string>;
  close(): Promise<void>;
}

interface S3Body {
  /** A file's path, or the bytes themselves. */
  content: string | Uint8Array;
  bytes: number;
  sha256: string;
}

/** A store's refusal. `code` is its own word for it, such as `NoSuchBucket`; null where it said none. */
export class S3Refusal extends Error {
  readonly status: number;
  readonly code: string | null;
  constructor(status: number, code: string | null) {
    super(`it answered ${status}${code === null ? "" : ` ${code}`}`);
    this.status = status;
    this.code = code;
  }
}

const connectMs = 3_000;
const mostErrorBytes = 16_384;

export function createS3({ url, prefix, region, credentials }: BucketPlace): S3 {
  const agent = new Agent({
    connect: { timeout: connectMs, lookup: storeRule(true).lookup },
    // The caller's signal ends what takes too long.
    ...{ headersTimeout: 0, bodyTimeout: 0 },
  });

  const signerOf = (
    method: string,
    name: string,
    more: { headers?: Record<string, string>; seconds?: number } = {},
  ): AwsV4Signer => {
    const target = new URL(`${url}/${prefix}${name}`);
    if (more.seconds !== undefined) target.searchParams.set("X-Amz-Expires", String(more.seconds));
    return new AwsV4Signer({
      ...{ ...credentials, method, url: target.href, region, service: "s3" },
      ...(more.headers && { headers: more.headers }),
      signQuery: more.seconds !== undefined,
    });
  };

  async function ask(
    method: Dispatcher.HttpMethod,
    name: string,
    signal: AbortSignal,
    body?: S3Body,
  ): Promise<Dispatcher.ResponseData> {
    const signed = await signerOf(method, name, {
      headers: {
        "x-amz-content-sha256": body?.sha256 ?? emptySha256,
        ...(body && { "content-length": String(body.bytes) }),
      },
    }).sign();
    const content = body?.content ?? null;
    const response = await send(signed.url, {
      ...{ method, signal, dispatcher: agent, headers: Object.fromEntries(signed.headers) },
      body: typeof content === "string" ? createReadStream(content) : content,
    });
    const { statusCode } = response;
    if (statusCode < 300 || (method !== "PUT" && statusCode === 404)) return response;
    throw new S3Refusal(statusCode, await codeOf(response));
  }

  return {
    async size(name, signal) {
      try {
        const { statusCode, headers, body } = await ask("HEAD", name, signal);
        await body.dump();
        return statusCode === 404 ? null : Number(headers["content-length"]);
      } catch (error) {
        // To whom it shows no list of its objects, Amazon does not say that there is none.
        if (error instanceof S3Refusal && error.status === 403) return null;
        throw error;
      }
    },
    async put(name, body, signal) {
      await (await ask("PUT", name, signal, body)).body.dump();
    },
    async remove(name, signal) {
      await (await ask("DELETE", name, signal)).body.dump();
    },
    async readableURL(name, seconds) {
      return (await signerOf("GET", name, { seconds }).sign()).url.href;
    },
    close: () => agent.close(),
  };
}

const emptySha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async function codeOf({ body }: Dispatcher.ResponseData): Promise<string | null> {
  let text = "";
  for await (const part of body) {
    text += String(part);
    if (text.length > mostErrorBytes) break;
  }
  return /<Code>(\w{1,64})<\/Code>/.exec(text)?.[1] ?? null;
}

/** What went wrong with the store, in words, and what to do about it. */
export function storeTrouble(error: unknown): string {
  if (error instanceof S3Refusal) {
    return `${error.message}. ${adviceFor(error)}`;
  }
  if (HoneError.isInstance(error)) return error.message;
  const { code, message, name } = error as Error & { code?: unknown };
  if (name === "TimeoutError")
    return "it did not answer in time. Look whether it is up, and how far away it is.";
  return `it cannot be reached (${typeof code === "string" ? code : message}). Look at --bucket-endpoint, and whether it is up.`;
}

function adviceFor({ status, code }: S3Refusal): string {
  switch (code) {
    case "NoSuchBucket":
      return "There is no such bucket: make it, or correct --bucket.";
    case "InvalidAccessKeyId":
    case "SignatureDoesNotMatch":
      return "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which the server reads when it starts.";
    case "ExpiredToken":
    case "InvalidToken":
    case "TokenRefreshRequired":
      return "The temporary credentials are over: start the server with new ones.";
    case "RequestTimeTooSkewed":
      return "The clock of this machine is wrong: correct it.";
    case "AuthorizationHeaderMalformed":
    case "PermanentRedirect":
    case "TemporaryRedirect":
      return "The bucket is in another region: set AWS_REGION.";
    case "XAmzContentSHA256Mismatch":
    case "BadDigest":
      return "What arrived there is not what was sent.";
    default:
  }
  if (status === 404) return "There is no such bucket: make it, or correct --bucket.";
  if (status === 401 || status === 403) {
    return "The credentials need s3:PutObject, s3:GetObject and s3:DeleteObject on what is below the prefix.";
  }
  return status >= 500 ? "The store has trouble of its own." : "Look at the store's log.";
}
