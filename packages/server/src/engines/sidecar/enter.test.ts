import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { startJoinableServer, type JoinableServer } from "../../testing/joinable-server.ts";
import { enter } from "./enter.ts";
import { writeIdentity } from "./identity.ts";

let folder: string;
let server: JoinableServer;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-enter-"));
  mkdirSync(join(folder, "server"));
  mkdirSync(join(folder, "a"));
  server = await startJoinableServer({ dataDir: join(folder, "server") });
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const options = (changes: object) => ({
  ...{ server: server.url, token: undefined, name: "a", dataDir: join(folder, "a") },
  ...{ log: silent, signal: new AbortController().signal, ...changes },
});

/** A way to the server on which the answers to the first requests to join are lost. */
async function losing(answers: number) {
  let lost = 0;
  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const told = await fetch(server.url + request.url!, {
      method: request.method!,
      headers: {
        authorization: request.headers.authorization!,
        "content-type": "application/json",
      },
      ...(parts.length > 0 && { body: Buffer.concat(parts) }),
    });
    const text = await told.text();
    if (request.url === "/engine/join" && told.ok && lost < answers) {
      lost++;
      request.socket.destroy();
      return;
    }
    response.writeHead(told.status, { "content-type": "application/json" });
    response.end(text);
  }
  const way = createServer((request, response) => void pass(request, response));
  await new Promise<void>((done) => void way.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(way.address() as AddressInfo).port}`,
    close(): void {
      way.closeAllConnections();
      way.close();
    },
  };
}

it("an engine whose answers were lost has joined all the same, once", async () => {
  const way = await losing(2);
  try {
    const token = await server.token();
    const { identity, base } = await enter(options({ server: way.url, token }));
    expect([identity.name, base.name]).toEqual(["a", "base"]);
    expect(await server.engines()).toHaveLength(1);
    const kept = JSON.parse(readFileSync(join(folder, "a", "engine.json"), "utf8")) as object;
    expect(kept).toMatchObject({ name: "a", key: identity.key });
  } finally {
    way.close();
  }
});

it("one that ended before it heard the answer comes in with the same key, with and without its token", async () => {
  const token = await server.token();
  const { identity } = await enter(options({ token }));
  for (const given of [undefined, token, await server.token()]) {
    await writeIdentity(join(folder, "a"), { ...identity, name: null });
    const again = await enter(options({ token: given }));
    expect(again.identity).toEqual(identity);
  }
  expect(await server.engines()).toHaveLength(1);
});

it("one that comes again under another name is told that it has one", async () => {
  await enter(options({ token: await server.token() }));
  for (const token of [undefined, await server.token()]) {
    await expect(enter(options({ name: "b", token }))).rejects.toMatchObject({
      ...{ code: "invalid_config", param: "name" },
      message: expect.stringMatching(/has joined as "a" .* Leave --name out/),
    });
  }
  expect((await enter(options({ name: undefined }))).identity.name).toBe("a");
  // Once it was removed it may come as whatever it likes.
  await server.call("DELETE", "/v1/engines/a");
  const { identity } = await enter(options({ name: "b", token: await server.token() }));
  expect(identity.name).toBe("b");
});

it("one that never got to the server says that it needs a token", async () => {
  const key = `hone_engine_${"k".repeat(43)}`;
  await writeIdentity(join(folder, "a"), { server: server.url, name: null, key });
  await expect(enter(options({}))).rejects.toMatchObject({ code: "invalid_api_key" });
  await expect(enter(options({ token: "hone_join_wrong" }))).rejects.toThrow("join token");
});
