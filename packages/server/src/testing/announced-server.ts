import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface AnnouncedServer {
  dataDir: string;
  /** Paths with their queries, in order. */
  requests: string[];
  close(): Promise<void>;
}

/** A data directory whose server answers as it is told, so that answers can be had that a real one gives rarely. */
export async function announcedServer(
  answer: (url: URL, response: ServerResponse, request: IncomingMessage) => unknown,
  announced: { pid?: number; base?: string } = {},
): Promise<AnnouncedServer> {
  const dataDir = mkdtempSync(join(tmpdir(), "hone-announced-"));
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://127.0.0.1");
    requests.push(url.pathname + url.search);
    const json = answer(url, response, request);
    if (response.writableEnded) return;
    response.setHeader("content-type", "application/json");
    if (json === undefined) response.statusCode = 404;
    response.end(JSON.stringify(json ?? {}));
  });
  await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const announcement = { url, pid: process.pid, base: "/bases/one", ...announced };
  writeFileSync(join(dataDir, "server.json"), JSON.stringify(announcement));
  writeFileSync(join(dataDir, "key"), `hone_${"k".repeat(32)}\n`, { mode: 0o600 });
  return {
    dataDir,
    requests,
    async close() {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
