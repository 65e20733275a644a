import { createHash, randomUUID, timingSafeEqual } from "node:crypto";
import { HoneError } from "@hone/core";
import type { Context, MiddlewareHandler } from "hono";
import type { AppEnv } from "./env.ts";
import { requireJsonType } from "./json.ts";

export interface GuardOptions {
  /** The keys and whom each stands for. Rollouts belong to the id, which outlives the key. Read at each request. */
  keys: readonly { id: string; key: string }[];
  /** Host names besides the loopback ones under which the server may be addressed. */
  hosts?: readonly string[] | undefined;
  /** Origins of web pages that may call the server, as `https://example.org`. */
  origins?: readonly string[] | undefined;
  /** Paths that may be read without a key. Host and Origin are checked there too. */
  open?: readonly string[] | undefined;
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
    if (!(reads && open.has(c.req.path))) c.set("keyId", identify(c, options.keys));
    if (hasBody(c)) requireJsonType(c);
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

function identify(c: Context<AppEnv>, keys: readonly { id: string; key: string }[]): string {
  const bearer = /^Bearer +(\S+) *$/i.exec(c.req.header("authorization") ?? "")?.[1];
  // Anthropic's SDK sends its key in a header of its own, and may send a token of the environment beside it.
  const given = [bearer, c.req.header("x-api-key")].filter((one) => one !== undefined);
  for (const one of given) {
    // Digests have one length and every key is compared, so the time tells nothing about the key.
    const hashed = digest(one);
    let id: string | null = null;
    for (const key of keys) if (timingSafeEqual(digest(key.key), hashed)) id = key.id;
    if (id !== null) return id;
  }
  const fault = given.length === 0 ? "There is no API key in the request" : "The API key is wrong";
  throw new HoneError(
    `${fault}. Send "Authorization: Bearer <key>" or "x-api-key: <key>"; on the server's machine \`hone keys\` says where the key is. Clients read it from HONE_API_KEY.`,
    { code: "invalid_api_key" },
  );
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
