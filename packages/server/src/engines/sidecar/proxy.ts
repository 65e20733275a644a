import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { HoneError, maxBodyBytes } from "@hone/core";
import type { Logger } from "pino";
import { Agent, request as send, type Dispatcher } from "undici";
import { listen } from "../../http/listen.ts";
import { toHoneError } from "../../http/errors.ts";
import { modelListSchema } from "../completion-wire.ts";

/** What the server may ask of the engine through the sidecar. Adapters are not among it. */
const routes: Readonly<Record<string, "GET" | "POST">> = {
  "/v1/completions": "POST",
  "/v1/models": "GET",
  "/health": "GET",
  "/metrics": "GET",
};

/** Prompts are token ids, which take several characters each. @unit bytes */
const bodyLimit = 4 * maxBodyBytes;

export interface EngineProxy {
  port: number;
  /** Requests that are under way. */
  readonly inFlight: number;
  /** Those of them that wait for the engine. Where the server does not read what has come, the engine is not waited for. */
  readonly awaited: number;
  close(): Promise<void>;
}

/** The one port of a sidecar: the engine contract for traffic, for whoever has the key. */
export async function startProxy(options: {
  host: string;
  port: number;
  /** What the server lets itself in by. */
  key: string;
  /** Throws while the engine does not answer. */
  engine: () => { baseURL: string; key: string | null };
  /** The engine's metrics, which others here read too. */
  metrics: () => Promise<string>;
  /** How the list of adapters names a folder of this machine. */
  rootOf: (folder: string) => string;
  log: Logger;
}): Promise<EngineProxy> {
  const { log } = options;
  const expected = digest(options.key);
  const agent = new Agent({
    ...{ headersTimeout: 0, bodyTimeout: 0, connect: { timeout: 5_000 } },
    ...{ keepAliveTimeout: 4_000, keepAliveMaxTimeout: 4_000 },
  });
  let inFlight = 0;
  /** Those that the engine was asked. */
  const asked = new Set<ServerResponse>();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
    if (!timingSafeEqual(digest(given), expected)) {
      throw new HoneError("This is not the key of this engine.", { code: "invalid_api_key" });
    }
    const path = request.url?.split("?", 1)[0] ?? "";
    const method = routes[path];
    if (method === undefined || method !== request.method) {
      throw new HoneError(`An engine answers no ${request.method} ${path.slice(0, 200)}.`, {
        code: path in routes ? "method_not_allowed" : "not_found",
      });
    }
    const body = method === "POST" ? await readBody(request) : null;
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const { baseURL, key } = options.engine();
    if (path === "/metrics") {
      const page = await options.metrics();
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4" });
      response.end(page);
      return;
    }
    if (path === "/v1/completions") asked.add(response);
    const told = await ask(baseURL + path, {
      ...{ method, body, signal: gone.signal, dispatcher: agent },
      headers: {
        ...(key !== null && { authorization: `Bearer ${key}` }),
        ...(body !== null && { "content-type": "application/json" }),
      },
    });
    if (path === "/v1/models" && told.statusCode === 200) {
      const list = modelListSchema.parse(await told.body.json());
      const data = list.data.map((one) => ({
        ...one,
        ...(one.root && one.parent && { root: options.rootOf(one.root) }),
      }));
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ object: "list", data }));
      return;
    }
    const type = told.headers["content-type"];
    response.writeHead(told.statusCode, {
      ...(typeof type === "string" && { "content-type": type }),
    });
    response.flushHeaders();
    await pipeline(told.body, response);
  }

  const server: Server = createServer((request, response) => {
    const isTraffic = request.url?.startsWith("/v1/completions") ?? false;
    if (isTraffic) inFlight++;
    response.once("close", () => {
      if (isTraffic) inFlight--;
      asked.delete(response);
    });
    answer(request, response).catch((error: unknown) => {
      // A stream that breaks off is broken off here too: nothing else tells that it was no end.
      if (response.headersSent || response.destroyed) {
        response.destroy();
        return;
      }
      const { status, ...shown } = envelopeOf(error, log);
      response.writeHead(status, { "content-type": "application/json", connection: "close" });
      response.end(JSON.stringify(shown));
    });
  });
  server.keepAliveTimeout = 65_000;
  server.requestTimeout = 60_000;
  const port = await listen(server, options.port, options.host);

  return {
    port,
    get inFlight() {
      return inFlight;
    },
    get awaited() {
      // What has been handed over whole waits for its reader alone.
      return [...asked].filter((one) => !one.writableNeedDrain && !one.writableEnded).length;
    },
    async close() {
      server.close();
      server.closeAllConnections();
      await agent.destroy();
    },
  };
}

async function ask(
  url: string,
  options: NonNullable<Parameters<typeof send>[1]>,
): Promise<Dispatcher.ResponseData<unknown>> {
  try {
    return await send(url, options);
  } catch (cause) {
    throw new HoneError("The engine does not answer. It may be restarting.", {
      ...{ code: "engine_unavailable", cause, retryAfterMs: 1_000 },
    });
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.byteLength;
    if (size > bodyLimit) {
      throw new HoneError(`The body is larger than ${bodyLimit} bytes.`, {
        code: "body_too_large",
      });
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function envelopeOf(error: unknown, log: Logger) {
  const known = toHoneError(error, log);
  return { status: known.status || 500, ...known.toEnvelope() };
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
