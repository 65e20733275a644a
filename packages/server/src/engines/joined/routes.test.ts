import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  makeAdapter,
  serverKey,
  startJoinableServer,
  type JoinableServer,
} from "../../testing/joinable-server.ts";
import { testProbe } from "../../testing/adapters.ts";
import { startSidecarEngine } from "../../testing/sidecar-engine.ts";
import { openEngineRegistry } from "./registry.ts";

let folder: string;
let server: JoinableServer;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-joined-"));
  server = await startJoinableServer({ dataDir: folder });
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const newKey = () => `hone_engine_${randomBytes(32).toString("base64url")}`;

async function keyOf(name: string): Promise<string> {
  const key = newKey();
  await server.call("POST", "/engine/join", { name, key }, await server.token());
  return key;
}

describe("join tokens", () => {
  it("let one engine in, once", async () => {
    const token = await server.token();
    const first = await server.call("POST", "/engine/join", { key: newKey() }, token);
    expect(first).toMatchObject({ status: 201, json: { name: "joined-1" } });
    const again = await server.call("POST", "/engine/join", { key: newKey() }, token);
    expect(again).toMatchObject({ status: 401, json: { error: { code: "invalid_api_key" } } });
  });

  it("bring the same engine again where the answer was lost", async () => {
    const [token, key] = [await server.token(), newKey()];
    const first = await server.call("POST", "/engine/join", { key, name: "a" }, token);
    expect(first).toMatchObject({ status: 201, json: { name: "a" } });
    // The token is used up, also for this engine; its key says that it is the same one.
    expect((await server.call("POST", "/engine/join", { key, name: "a" }, token)).status).toBe(401);
    const again = await server.call("POST", "/engine/join", { key, name: "a" }, key);
    expect(again).toMatchObject({ status: 200, json: { name: "a" } });
    const stranger = await server.call("POST", "/engine/join", { key }, newKey());
    expect(stranger.status).toBe(401);
    expect(await server.engines()).toHaveLength(1);
  });

  it("are not used up by what is refused", async () => {
    const token = await server.token();
    for (const body of [
      { name: "No Name" },
      { name: "worker" },
      { name: "engine-2" },
      { nme: "a" },
    ]) {
      expect(
        (await server.call("POST", "/engine/join", { key: newKey(), ...body }, token)).status,
      ).toBe(400);
    }
    const own = await server.call(
      "POST",
      "/engine/join",
      { name: "engine-2", key: newKey() },
      token,
    );
    expect(own.json).toMatchObject({
      error: { message: expect.stringContaining("another --name") },
    });
    expect(
      (await server.call("POST", "/engine/join", { name: "a", key: newKey() }, token)).status,
    ).toBe(201);
    const other = await server.call(
      "POST",
      "/engine/join",
      { name: "a", key: newKey() },
      await server.token(),
    );
    expect(other).toMatchObject({ status: 400, json: { error: { param: "name" } } });
  });

  it("end after their time, and outlive a start of the server", () => {
    let now = 1_000;
    const open = () => openEngineRegistry({ dataDir: folder, taken: [], clock: () => now });
    const { token, expiresAt } = open().issue(5_000);
    expect(expiresAt).toBe(6_000);
    now = 5_999;
    expect(open().isToken(token)).toBe(true);
    now = 6_000;
    expect(open().isToken(token)).toBe(false);
    expect(() => open().redeem(token, newKey())).toThrow("too old");
  });

  it("and keys are on the disk as hashes, for the owner alone", async () => {
    const token = await server.token();
    const key = await keyOf("a");
    const file = join(folder, "engines.json");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const text = readFileSync(file, "utf8");
    expect(text).not.toContain(token);
    expect(text).not.toContain(key);
    expect(openEngineRegistry({ dataDir: folder, taken: [] }).nameOf(key)).toBe("a");
  });
});

describe("keys", () => {
  it("of engines open the engines' routes and nothing else; the server's key opens the others", async () => {
    const key = await keyOf("a");
    const token = await server.token();
    const routes: [string, string, unknown?][] = [
      ["GET", "/engine/base"],
      ["POST", "/engine/report", {}],
    ];
    for (const [method, path, body] of routes) {
      expect((await server.call(method, path, body, key)).status).not.toBe(401);
      for (const wrong of [serverKey, token, "", "x"]) {
        expect((await server.call(method, path, body, wrong)).status).toBe(401);
      }
    }
    for (const path of ["/v1/engines", "/v1/models", "/health", "/metrics", "/openapi.json"]) {
      expect((await server.call("GET", path, undefined, key)).status).toBe(401);
      expect((await server.call("GET", path, undefined, token)).status).toBe(401);
    }
    expect((await server.call("POST", "/v1/engines/tokens", {}, key)).status).toBe(401);
    expect((await server.call("POST", "/engine/join", { key: newKey() }, serverKey)).status).toBe(
      401,
    );
    // It says who it is, and makes no other engine.
    const again = await server.call("POST", "/engine/join", { key: newKey() }, key);
    expect(again).toMatchObject({ status: 200, json: { name: "a" } });
    expect(await server.engines()).toHaveLength(1);
  });

  it("are worth nothing once the engine has left or was removed", async () => {
    const [a, b] = [await keyOf("a"), await keyOf("b")];
    expect((await server.call("POST", "/engine/leave", {}, a)).status).toBe(200);
    expect((await server.call("DELETE", "/v1/engines/b")).status).toBe(200);
    for (const key of [a, b]) {
      expect((await server.call("GET", "/engine/base", undefined, key)).status).toBe(401);
    }
    expect((await server.call("DELETE", "/v1/engines/b")).status).toBe(404);
  });
});

describe("an engine that is known", () => {
  const boot = "7f9d2f8e-6c3b-4f0a-9a51-0c0a4ad50a11";
  const announcement = (url: string) => ({
    ...{ boot, url, key: "k".repeat(43), base: { name: "base", fingerprint: null } },
    ...{ maxModelLen: 512, maxRank: 8, maxSequences: null as number | null },
  });

  it("is one that the server reaches, of its base, with room for its models", async () => {
    const key = await keyOf("a");
    const engine = await startSidecarEngine();
    const announce = (changes: object) =>
      server.call("POST", "/engine/announce", { ...announcement(engine.url), ...changes }, key);
    try {
      expect(await announce({ url: "http://127.0.0.1:9" })).toMatchObject({
        status: 503,
        json: { error: { message: expect.stringContaining("--advertise") } },
      });
      for (const changes of [
        { base: { name: "other", fingerprint: null } },
        { maxModelLen: 511 },
        { maxRank: 4 },
      ]) {
        const { status, json } = await announce(changes);
        expect([status, json]).toMatchObject([409, { error: { code: "base_mismatch" } }]);
      }
      expect(await announce({ url: "http://169.254.169.254" })).toMatchObject({
        status: 400,
        json: { error: { param: "url", message: expect.stringContaining("169.254.169.254") } },
      });
      for (const changes of [{ url: "file:///etc/passwd" }, { key: "short" }, { more: 1 }]) {
        expect((await announce(changes)).status).toBe(400);
      }
      expect((await announce({})).status).toBe(200);
    } finally {
      engine.close();
    }
  });

  it("gets as many requests at first as it says that it batches", async () => {
    const key = await keyOf("a");
    const engine = await startSidecarEngine();
    const bound = async (): Promise<number | null | undefined> => {
      await server.pool.readLoads();
      return server.pool.loads()[0]?.bound;
    };
    expect(await bound()).toBe(256);
    const said = { ...announcement(engine.url), maxSequences: 48 };
    await server.call("POST", "/engine/announce", said, key);
    expect(await bound()).toBe(48);
    engine.close();
  });

  it("is believed by what it answered to the probe since it was asked, which the server judges itself", async () => {
    const key = await keyOf("a");
    const engine = await startSidecarEngine();
    await server.call("POST", "/engine/announce", announcement(engine.url), key);
    const report = { boot, ready: true, refused: [] };
    const tell = (generation: number, served: object[]) =>
      server.call("POST", "/engine/report", { ...report, generation, served }, key);
    await tell(0, []);
    await expect.poll(async () => (await server.engines())[0]?.state).toBe("serving");
    const { policy, sha256, ...adapter } = makeAdapter(join(folder, "models"), "m@1");
    const publish = () => server.pool.load({ policy, sha256, ...adapter, probe: testProbe });
    /** What the server wants now, and a report that it is served so. */
    const wanted = async () => {
      const live = await server.call("GET", `/engine/live?boot=${boot}&after=0`, undefined, key);
      const { generation, adapters } = live.json as {
        generation: number;
        adapters: { asked: number }[];
      };
      return { generation, asked: adapters[0]?.asked };
    };
    const untilWanted = async () => {
      await expect.poll(async () => (await wanted()).asked).toBeDefined();
      return await wanted();
    };
    const served = (asked: number | undefined, answer: object | null) => [
      { policy, sha256, asked, answer },
    ];

    for (const [answer, reason] of [
      [testProbe.base, "of the base without the adapter"],
      [{ prompt: [-1], next: -0.5 }, "did not answer the probe"],
      [null, "did not answer the probe"],
    ] as const) {
      const failing = publish().catch((error: unknown) => error);
      const { generation, asked } = await untilWanted();
      await tell(generation, served(asked, answer));
      await expect.poll(async () => (await wanted()).asked).toBeUndefined();
      await tell(generation + 1, []);
      expect(await failing).toMatchObject({ message: expect.stringContaining(reason) });
    }

    let published = false;
    const publishing = publish().then(() => (published = true));
    const { generation, asked } = await untilWanted();
    // Of an earlier time, although it is of the same weights.
    await tell(generation, served(asked! - 1, testProbe.policy));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(published).toBe(false);
    await tell(generation, served(asked, testProbe.policy));
    await publishing;
    engine.close();
  });

  it("gets the weights that it shall serve, and no others", async () => {
    const key = await keyOf("a");
    const engine = await startSidecarEngine();
    const live = `/engine/live?boot=${boot}&after=0`;
    expect((await server.call("GET", live, undefined, key)).json).toEqual({ known: false });
    await server.call("POST", "/engine/announce", announcement(engine.url), key);
    const report = { boot, generation: 0, ready: true, served: [], refused: [] };
    expect((await server.call("POST", "/engine/report", report, key)).json).toEqual({
      known: true,
    });
    await expect.poll(async () => (await server.engines())[0]?.state).toBe("serving");
    const adapter = makeAdapter(join(folder, "models"), "m@1");
    // Nobody reports that it was loaded.
    const loading = server.pool.load(adapter).catch((error: unknown) => error);
    const get = (sha256: string) =>
      fetch(`${server.url}/engine/adapters/${sha256}`, {
        headers: { authorization: `Bearer ${key}` },
      });
    await expect.poll(async () => (await get(adapter.sha256)).status).toBe(200);
    const bytes = new Uint8Array(await (await get(adapter.sha256)).arrayBuffer());
    expect(bytes).toEqual(new Uint8Array(adapter.weights));
    for (const other of ["0".repeat(64), "..%2f..%2fkey", "x"]) {
      expect((await get(other)).status).toBe(404);
    }
    const { json } = await server.call("GET", live, undefined, key);
    expect(json).toMatchObject({
      ...{ known: true, base: { name: "base", fingerprint: null } },
      adapters: [{ policy: "m@1", sha256: adapter.sha256, rank: 8 }],
    });
    const no = { policy: "m@1", sha256: adapter.sha256, fault: "adapter", reason: "it is Tuesday" };
    const { generation } = json as { generation: number };
    await server.call("POST", "/engine/report", { ...report, generation, refused: [no] }, key);
    expect(await loading).toMatchObject({
      code: "bad_adapter",
      message: expect.stringContaining("it is Tuesday"),
    });
    expect((await get(adapter.sha256)).status).toBe(404);
    engine.close();
  });
});
