import { createHash, randomUUID, timingSafeEqual } from "node:crypto";
import { HoneError } from "@hone/core";
import type { Context, MiddlewareHandler } from "hono";
import type { AppEnv } from "./env.ts";
import { isProtobuf, requireJsonType } from "./json.ts";

export interface GuardOptions {
  /** The keys and whom each stands for. Rollouts belong to the id, which outlives the key. Read at each request. */
  keys: readonly { id: string; key: string }[];
  /** Host names besides the loopback ones under which the server may be addressed. */
  hosts?: readonly string[] | undefined;
  /** Origins of web pages that may call the server, as `https://example.org`. */
  origins?: readonly string[] | undefined;
  /** Paths that may be read without a key. Host and Origin are checked there too. */
  open?: readonly string[] | undefined;
  realms?: readonly KeyRealm[] | undefined;
}

/** Paths with keys of their own: those open nothing else, and the server's keys do not open them. */
export interface KeyRealm {
  prefix: string;
  /** Whose key one of these is. Throws `invalid_api_key` where it is nobody's that may ask for this path. */
  identify(path: string, given: readonly string[]): string;
}

const loopbackNames = ["localhost", "127.0.0.1", "[::1]"];

/** Stands before every route, known or not, and checks Host, Origin, key and media type. */
export function guard(options: GuardOptions): MiddlewareHandler<AppEnv> {
  const hosts = new Set([...loopbackNames, ...(options.hosts ?? [])].map((h) => h.toLowerCase()));
  const origins = new Set(options.origins);
  const open = new Set(options.open);

  return async (c, next) => {
    const requestId = `req_${randomUUID().replaceAll("-", "")}`;
    c.set("requestId", requestId);
    c.header("x-request-id", requestId);
    c.header("request-id", requestId);
    checkHost(c, hosts);
    checkOrigin(c, origins);
    const reads = c.req.method === "GET" || c.req.method === "HEAD";
    const realm = options.realms?.find(({ prefix }) => c.req.path.startsWith(prefix));
    if (realm) c.set("keyId", realm.identify(c.req.path, givenKeys(c)));
    else if (!(reads && open.has(c.req.path))) c.set("keyId", identify(c, options.keys));
    if (hasBody(c) && !(isTinker(c) && isProtobuf(c))) requireJsonType(c);
    await next();
  };
}

// A page of another site, whose name was made to resolve to 127.0.0.1, sends its own name as Host.
function checkHost(c: Context<AppEnv>, allowed: ReadonlySet<string>): void {
  const host = c.req.header("host") ?? new URL(c.req.url).host;
  const name = host.replace(/:\d*$/, "").toLowerCase();
  if (allowed.has(name)) return;
  throw new HoneError(
    `This server does not answer for the host "${name.slice(0, 100)}". Start it with --allow-host ${name.slice(0, 100)} if it should.`,
    { code: "forbidden_host" },
  );
}

function checkOrigin(c: Context<AppEnv>, allowed: ReadonlySet<string>): void {
  const origin = c.req.header("origin");
  if (origin === undefined || allowed.has(origin)) return;
  throw new HoneError(
    `Pages of "${origin.slice(0, 100)}" may not call this server. Start it with --allow-origin ${origin.slice(0, 100)} if they may.`,
    { code: "forbidden_origin" },
  );
}

/** Whether Tinker's client may be speaking: it has its own header for the key, and sends protocol buffers. */
function isTinker(c: Context<AppEnv>): boolean {
  return c.req.path.startsWith("/tinker/");
}

/** That client takes only keys that begin so. */
const tinkerPrefix = /^tml-/;

/** Anthropic's SDK and Tinker's send the key in a header of their own, and the first may send a token beside it. */
export function givenKeys(c: Context<AppEnv>): string[] {
  const own = c.req.header("x-api-key");
  if (isTinker(c)) return own === undefined ? [] : [own.replace(tinkerPrefix, "")];
  const bearer = /^Bearer +(\S+) *$/i.exec(c.req.header("authorization") ?? "")?.[1];
  return [bearer, own].filter((one) => one !== undefined);
}

function identify(c: Context<AppEnv>, keys: readonly { id: string; key: string }[]): string {
  const given = givenKeys(c);
  for (const one of given) {
    // Digests have one length and every key is compared, so the time tells nothing about the key.
    const hashed = digest(one);
    let id: string | null = null;
    for (const key of keys)
      if (timingSafeEqual(digest(comparable(c, key.key)), hashed)) id = key.id;
    if (id !== null) return id;
  }
  const fault = given.length === 0 ? "There is no API key in the request" : "The API key is wrong";
  const how = isTinker(c)
    ? 'Give Tinker\'s client api_key="tml-<key>"'
    : 'Send "Authorization: Bearer <key>" or "x-api-key: <key>"';
  throw new HoneError(
    `${fault}. ${how}; on the server's machine \`hone keys\` says where the key is. Clients read it from HONE_API_KEY.`,
    { code: "invalid_api_key" },
  );
}

/** A key that begins with the prefix itself is given as it is. */
function comparable(c: Context<AppEnv>, key: string): string {
  return isTinker(c) ? key.replace(tinkerPrefix, "") : key;
}

function hasBody(c: Context<AppEnv>): boolean {
  if (c.req.method === "GET" || c.req.method === "HEAD") return false;
  const length = c.req.header("content-length");
  return (
    c.req.header("transfer-encoding") !== undefined || (length !== undefined && length !== "0")
  );
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
