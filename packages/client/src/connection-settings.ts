import { hideKey, requireNumber } from "@hone/core";
import { findServer } from "@hone/transport";
import type { ConnectionSettings, Fetch } from "@hone/transport";
import { announcedServer, defaultDataDir } from "@hone/transport/node";
import { optionalFunction } from "./argument-kinds.ts";

export interface HoneOptions {
  /**
   * The server, with or without `/v1`.
   * @default HONE_URL, else the server that runs on this machine (`server.json` in HONE_HOME or ~/.hone)
   */
  baseURL?: string | undefined;
  /** @default HONE_API_KEY if the server is that of HONE_URL, else the key file of the server on this machine */
  apiKey?: string | undefined;
  /** @default globalThis.fetch */
  fetch?: Fetch | undefined;
  /** How often a request is sent again after 408, 429, 5xx or a lost connection. @default 4 */
  maxRetries?: number | undefined;
  /** Limit of one request, event streams excepted. @unit ms @default 60000 */
  timeoutMs?: number | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Finds the server and its key by the one rule of client, ruler and command line: see `findServer`. */
export function resolveSettings(
  options: HoneOptions,
  environment: Environment = process.env,
): ConnectionSettings {
  const announced = announcedServer(defaultDataDir(environment));
  const { baseURL, apiKey } = options;
  const found = findServer({ baseURL, apiKey, environment, announced });
  optionalFunction("new Hone()", options.fetch, "fetch");
  return hideKey({
    serverURL: found.serverURL,
    apiKey: found.apiKey,
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    maxRetries: requireNumber("maxRetries", options.maxRetries ?? 4, { whole: true, least: 0 }),
    timeoutMs: requireNumber("timeoutMs", options.timeoutMs ?? 60_000, { whole: true, least: 1 }),
  });
}
