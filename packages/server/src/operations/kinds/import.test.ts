import { execFileSync } from "node:child_process";
import { cp, mkdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { expect } from "vitest";
import { encodeSafetensors } from "../../step-data/safetensors.ts";
import { testProbe } from "../../testing/adapters.ts";
import { ended } from "../../testing/fixtures.ts";
import { test as stateTest } from "../../testing/state-test.ts";

/** An adapter that may be imported. */
interface Source {
  folder: string;
  config: string;
  weights: string;
}

const test = stateTest
  .extend("source", async ({ server }): Promise<Source> => {
    const folder = join(server.dataDir, "imports/mine");
    const weights = join(folder, "adapter_model.safetensors");
    await cp(join(server.dataDir, "models/m/policies/0"), folder, { recursive: true });
    await writeFile(weights, adapter);
    return { folder, weights, config: join(folder, "adapter_config.json") };
  })
  .extend("submitImport", ({ server, source }) => async (): Promise<string> => {
    return (await server.submit({ type: "import", path: source.folder })).json.id;
  })
  .extend("policyRoot", ({ folder }) => (step: number): string => {
    return join(folder, `models/m/policies/${step}`);
  });

const adapter = encodeSafetensors({ a: { type: "F32", data: Float32Array.of(1, 2) } }, {});
function withHeaderLength(length: number): Buffer {
  const file = Buffer.from(adapter);
  file.writeBigUInt64LE(BigInt(length));
  return file;
}

const away = () => new HoneError("away", { code: "engine_unavailable" });

test("an adapter is checked under a name that no policy has", async ({
  engine,
  server,
  submitImport,
}) => {
  const id = await submitImport();
  expect((await ended(server, id)).status).toBe("succeeded");
  expect(engine.calls.filter((call) => call.startsWith("load"))).toEqual([
    "load m@0",
    `load m@1.check-${id}`,
    "load m@1",
  ]);
  expect([...engine.names]).toEqual(["m@0", "m@1"]);
});

test("one that was refused and stays loaded is never served as the next step", async ({
  engine,
  server,
  submitImport,
  policyRoot,
}) => {
  const { load, unload } = engine;
  engine.unload = () => Promise.reject(away());
  // It takes the adapter and fails after it: the name is in its list.
  engine.load = async (given) => {
    await load(given);
    throw new HoneError("NaN", { code: "bad_adapter" });
  };
  const id = await submitImport();
  expect(await ended(server, id)).toMatchObject({
    status: "failed",
    error: { code: "bad_adapter" },
  });
  expect([...engine.names]).toEqual(["m@0", `m@1.check-${id}`]);
  Object.assign(engine, { load, unload });
  await server.train();
  expect(engine.roots.get("m@1")).toBe(policyRoot(1));
});

test("an engine's own failure is no fault of the adapter", async ({
  engine,
  server,
  submitImport,
}) => {
  engine.failNext = new HoneError("500 over it", { code: "engine_error" });
  expect(await ended(server, await submitImport())).toMatchObject({
    status: "failed",
    error: { code: "engine_error", message: "500 over it" },
  });
});

test("one that was accepted is imported, whether or not it can be unloaded", async ({
  engine,
  server,
  submitImport,
  policyRoot,
}) => {
  engine.unload = () => Promise.reject(away());
  expect(await ended(server, await submitImport())).toMatchObject({
    status: "succeeded",
    result: { policy: "m@1" },
  });
  expect(engine.roots.get("m@1")).toBe(policyRoot(1));
});

test("an engine that ends during the check begins it again when it is back", async ({
  engine,
  server,
  submitImport,
}) => {
  engine.failNext = away();
  const id = await submitImport();
  const waiting = await server.app.request(`/v1/operations/${id}/events`);
  const reader = waiting.body!.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; !text.includes("event: warning");) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`the operation ended without a warning: ${text}`);
    text += value;
  }
  await reader.cancel();
  expect((await server.call("GET", `/v1/operations/${id}`)).json.status).toBe("running");
  await server.state.onEngineReady();
  expect(await ended(server, id)).toMatchObject({ status: "succeeded", result: { step: 1 } });
});

test("a server that ends during the check leaves an adapter that the next one unloads", async ({
  engine,
  server,
  submitImport,
}) => {
  const { load } = engine;
  let began: () => void = () => undefined;
  const checking = new Promise<void>((resolve) => void (began = resolve));
  engine.load = async (given) => {
    await load(given);
    began();
    // The adapter is there, and the connection breaks before the answer.
    throw away();
  };
  const { unload } = engine;
  engine.unload = () => Promise.reject(away());
  const id = await submitImport();
  await checking;
  Object.assign(engine, { load });
  await server.close();
  Object.assign(engine, { unload });
  expect([...engine.names]).toContain(`m@1.check-${id}`);
  await server.open();
  expect((await ended(server, id)).status).toBe("succeeded");
  expect([...engine.names]).toEqual(["m@0", "m@1"]);
});

test.for<[string, RegExp, (source: Source) => unknown]>([
  ["no config", /adapter_config.json is missing/, ({ config }) => rm(config)],
  ["no weights", /adapter_model.safetensors is missing/, ({ weights }) => rm(weights)],
  ["a pipe for a config", /config.json is not a regular file/, ({ config }) => pipe(config)],
  ["pipe for weights", /safetensors is not a regular file/, ({ weights }) => pipe(weights)],
  ["a folder for a config", /not a regular file/, ({ config }) => replace(config, (f) => mkdir(f))],
  [
    "a device",
    /outside of its folder/,
    ({ config }) => replace(config, (f) => symlink("/dev/zero", f)),
  ],
  ["a huge config", /has 2000000 bytes/, ({ config }) => truncate(config, 2_000_000)],
  ["huge weights", /has 8000000000 bytes/, ({ weights }) => truncate(weights, 8_000_000_000)],
  ["empty weights", /ends within its header/, ({ weights }) => truncate(weights, 0)],
  ["half a header", /ends within its header/, ({ weights }) => truncate(weights, 20)],
  [
    "half of its data",
    /4 bytes of tensors, and its header says 8/,
    ({ weights }) => cutData(weights),
  ],
  ["a lying length", /ends within/, ({ weights }) => writeFile(weights, withHeaderLength(2 ** 52))],
  [
    "a short length",
    /not that of a safetensors/,
    ({ weights }) => writeFile(weights, withHeaderLength(9)),
  ],
])(
  "%s is a bad adapter, and the server goes on",
  async ([, message, damage], { engine, server, source, submitImport }) => {
    await damage(source);
    // More of them than there are threads for files.
    const ids = [];
    for (let i = 0; i < 5; i++) ids.push(await submitImport());
    for (const id of ids) {
      const { status, error } = await ended(server, id);
      expect({ status, code: error?.code }).toEqual({ status: "failed", code: "bad_adapter" });
      expect(error?.message).toMatch(message);
    }
    expect(engine.calls).toEqual(["load m@0"]);
  },
);

async function replace(file: string, make: (file: string) => Promise<unknown>): Promise<void> {
  await rm(file);
  await make(file);
}
const pipe = (file: string) =>
  replace(file, (name) => Promise.resolve(execFileSync("mkfifo", [name])));
const cutData = (file: string): Promise<void> => truncate(file, adapter.byteLength - 4);

test("one that the trainer finds unfit reaches no engine", async ({
  engine,
  server,
  trainer,
  submitImport,
}) => {
  trainer.probe = () =>
    Promise.reject(
      new HoneError("q_proj holds values that are not finite", { code: "bad_adapter" }),
    );
  expect(await ended(server, await submitImport())).toMatchObject({
    status: "failed",
    error: { code: "bad_adapter", message: "q_proj holds values that are not finite" },
  });
  expect(engine.calls).toEqual(["load m@0"]);
});

test("one of which the trainer cannot tell the probe is imported without it, and a warning says so", async ({
  server,
  trainer,
  submitImport,
}) => {
  trainer.probe = () => Promise.reject(new HoneError("no", { code: "train_failed" }));
  const id = await submitImport();
  expect((await ended(server, id)).status).toBe("succeeded");
  const told = await (await server.app.request(`/v1/operations/${id}/events`)).text();
  expect(told).toContain("The policy's probe could not be computed (no).");
});

test("one whose logprobs in the engine are others is refused, and the engine does not keep it", async ({
  engine,
  server,
  submitImport,
}) => {
  engine.answers = testProbe.base;
  expect(await ended(server, await submitImport())).toMatchObject({
    status: "failed",
    error: { code: "bad_adapter", message: expect.stringContaining("of the base without the") },
  });
  expect([...engine.names]).toEqual(["m@0"]);
});
