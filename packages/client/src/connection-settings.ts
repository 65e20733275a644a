import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { hideKey, HoneError, kindOf, wrongKind } from "@hone/core";
import { optionalFunction } from "./argument-kinds.ts";

export type Fetch = typeof globalThis.fetch;

export interface HoneOptions {
  /**
   * The server, with or without `/v1`.
   * @default HONE_URL, else the server that runs on this machine (`server.json` in HONE_HOME or ~/.hone)
   */
  baseURL?: string | undefined;
  /** @default HONE_API_KEY, else, for the server on this machine, the key that it wrote */
  apiKey?: string | undefined;
  /** @default globalThis.fetch */
  fetch?: Fetch | undefined;
  /** How often a request is sent again after 408, 429, 5xx or a lost connection. @default 4 */
  maxRetries?: number | undefined;
  /** Limit of one request, event streams excepted. @unit ms @default 60000 */
  timeoutMs?: number | undefined;
}

export interface ConnectionSettings {
  /** The server's origin and path prefix, with no trailing slash and without `/v1`. */
  serverURL: string;
  apiKey: string;
  fetch: Fetch;
  maxRetries: number;
  timeoutMs: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Options first, then the environment, then what a server on this machine left in its home. */
export function resolveSettings(
  options: HoneOptions,
  environment: Environment = process.env,
): ConnectionSettings {
  const home = environment["HONE_HOME"] || join(homedir(), ".hone");
  const given = options.baseURL ?? (environment["HONE_URL"] || null);
  const serverURL = normaliseURL(given ?? urlOfLocalServer(home));
  const apiKey = options.apiKey ?? (environment["HONE_API_KEY"] || null);
  optionalFunction("new Hone()", options.fetch, "fetch");
  return hideKey({
    serverURL,
    apiKey: readKey(apiKey ?? keyOfLocalServer(home, given === null ? null : serverURL)),
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    maxRetries: wholeNumber("maxRetries", options.maxRetries ?? 4, 0),
    timeoutMs: wholeNumber("timeoutMs", options.timeoutMs ?? 60_000, 1),
  });
}

/** What no header can hold would be quoted by the error of the header. */
function readKey(apiKey: unknown): string {
  const key = typeof apiKey === "string" ? apiKey.trim() : null;
  if (key && /^[\x21-\x7e]+$/.test(key)) return key;
  const given =
    typeof apiKey === "string"
      ? key
        ? "one with other characters"
        : "an empty one"
      : kindOf(apiKey);
  throw new HoneError(
    `apiKey is a text of printable ASCII characters without spaces, not ${given}. Pass what the server printed.`,
    { code: "invalid_config", param: "apiKey" },
  );
}

const howToStart =
  "Start one with `npx @hone/server serve` (in a clone: `npm run hone -- serve`), or pass baseURL and apiKey (or set HONE_URL and HONE_API_KEY).";

function urlOfLocalServer(home: string): string {
  const path = join(home, "server.json");
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new HoneError(`No Hone server was found: ${path} cannot be read. ${howToStart}`, {
      code: "invalid_config",
      param: "baseURL",
      cause,
    });
  }
  const url = (content as { url?: unknown } | null)?.url;
  if (typeof url === "string") return url;
  throw new HoneError(`${path} names no url. ${howToStart}`, {
    code: "invalid_config",
    param: "baseURL",
  });
}

/** `serverURL`: the URL that the user named, null where it is the local server's own. */
function keyOfLocalServer(home: string, serverURL: string | null): string {
  const path = join(home, "key");
  // The key opens the server on this machine; another one has no business seeing it.
  if (serverURL !== null && !isLocalServer(home, serverURL)) {
    throw new HoneError(
      `No API key for ${serverURL}. Pass apiKey, or set HONE_API_KEY to what that server printed.`,
      { code: "invalid_config", param: "apiKey" },
    );
  }
  try {
    const key = readFileSync(path, "utf8").trim();
    if (key) return key;
  } catch (cause) {
    throw new HoneError(`No API key: ${path} cannot be read. ${howToStart}`, {
      code: "invalid_config",
      param: "apiKey",
      cause,
    });
  }
  throw new HoneError(`No API key: ${path} is empty. ${howToStart}`, {
    code: "invalid_config",
    param: "apiKey",
  });
}

function isLocalServer(home: string, serverURL: string): boolean {
  let local: string;
  try {
    local = normaliseURL(urlOfLocalServer(home));
  } catch {
    return false;
  }
  return originOf(local) === originOf(serverURL);
}

/** `localhost` and its addresses are one server. */
export function originOf(url: string): string {
  return new URL(url).origin.replace(/\/\/(localhost|\[::1\])(?=:|$)/, "//127.0.0.1");
}

function normaliseURL(url: unknown): string {
  if (typeof url !== "string" && !(url instanceof URL)) {
    throw wrongKind("new Hone()", "a URL as baseURL", url, "baseURL");
  }
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch (cause) {
    throw new HoneError(`"${String(url)}" is not a URL. Give one such as http://127.0.0.1:7777.`, {
      code: "invalid_config",
      param: "baseURL",
      cause,
    });
  }
  if (parsed.protocol !== "http:" && parsed.protocol !== "https:") {
    throw new HoneError(`The server's URL must be http or https, not ${parsed.protocol}`, {
      code: "invalid_config",
      param: "baseURL",
    });
  }
  if (parsed.username || parsed.password) {
    throw new HoneError(
      "baseURL has a user or a password in it. Leave them out, and pass apiKey.",
      {
        code: "invalid_config",
        param: "baseURL",
      },
    );
  }
  const path = parsed.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
  return parsed.origin + path;
}

function wholeNumber(name: string, value: number, least: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new HoneError(
    `${name} must be a whole number of at least ${least}, not ${kindOf(value)}.`,
    {
      code: "invalid_config",
      param: name,
    },
  );
}
