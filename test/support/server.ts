import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Hone } from "@hone/client";
import { startServer, type ServerOptions } from "@hone/server";

/** The base that the repository ships, for every test that needs a model. */
export const base = fileURLToPath(new URL("../../models/hone-2048-1m", import.meta.url));

export interface TestServer {
  url: string;
  key: string;
  dataDir: string;
  hone: Hone;
  /** A request with the server's key. */
  fetch(
    path: string,
    init?: { method?: string; body?: string; headers?: Record<string, string> },
  ): Promise<Response>;
  close(): Promise<void>;
}

/** A real server with its real children, in a data directory of its own. */
export async function startTestServer(
  dataDir?: string,
  options: Partial<ServerOptions> = {},
): Promise<TestServer> {
  const dir = dataDir ?? (await mkdtemp(join(tmpdir(), "hone-test-")));
  const server = await startServer({ base, port: 0, ...options, dataDir: dir });
  return {
    url: server.url,
    key: server.key,
    dataDir: dir,
    hone: new Hone({ baseURL: server.url, apiKey: server.key }),
    fetch: (path, init = {}) =>
      fetch(new URL(path, server.url), {
        ...init,
        headers: {
          authorization: `Bearer ${server.key}`,
          "content-type": "application/json",
          ...init.headers,
        },
      }),
    async close() {
      await server.close();
      if (dataDir === undefined) await rm(dir, { recursive: true, force: true });
    },
  };
}
