import { execFileSync } from "node:child_process";
import { cp, mkdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { encodeSafetensors } from "../../step-data/safetensors.ts";
import {
  type AdapterList,
  adapterList,
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "../../testing/fixtures.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let engine: AdapterList;
let server: TestState;
let source: string;
/** The names under which adapters were loaded, in order. */
let loaded: string[];
beforeEach(async () => {
  folder = await temporaryFolder();
  engine = adapterList();
  const { load } = engine;
  loaded = [];
  engine.load = (policy, path) => {
    loaded.push(policy);
    return load(policy, path);
  };
  server = await openTestState(folder.path, { engine: () => engine, trainer: fileTrainer() });
  await server.call("PUT", "/v1/models/m", {});
  source = join(folder.path, "imports/mine");
  await cp(join(folder.path, "models/m/policies/0"), source, { recursive: true });
  await writeFile(weights(), adapter);
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

const config = (): string => join(source, "adapter_config.json");
const weights = (): string => join(source, "adapter_model.safetensors");
const adapter = encodeSafetensors({ a: { type: "F32", data: Float32Array.of(1, 2) } }, {});
function withHeaderLength(length: number): Buffer {
  const file = Buffer.from(adapter);
  file.writeBigUInt64LE(BigInt(length));
  return file;
}

let tokens = 0;
async function submit(op: object): Promise<string> {
  const body = { clientToken: `t${tokens++}`, op };
  return (await server.call("POST", "/v1/models/m/operations", body)).json.id;
}
const submitImport = (): Promise<string> => submit({ type: "import", path: source });
const away = () => new HoneError("away", { code: "engine_unavailable" });
const policyRoot = (step: number): string => join(folder.path, `models/m/policies/${step}`);

test("an adapter is checked under a name that no policy has", async () => {
  const id = await submitImport();
  expect((await ended(server, id)).status).toBe("succeeded");
  expect(loaded).toEqual(["m@0", `m@1.check-${id}`, "m@1"]);
  expect([...engine.names]).toEqual(["m@0", "m@1"]);
});

test("one that was refused and stays loaded is never served as the next step", async () => {
  const { load, unload } = engine;
  engine.unload = () => Promise.reject(away());
  // It takes the adapter and fails after it: the name is in its list.
  engine.load = async (policy, path) => {
    await load(policy, path);
    throw new HoneError("NaN", { code: "bad_adapter" });
  };
  const id = await submitImport();
  expect(await ended(server, id)).toMatchObject({
    status: "failed",
    error: { code: "bad_adapter" },
  });
  expect([...engine.names]).toEqual(["m@0", `m@1.check-${id}`]);
  Object.assign(engine, { load, unload });
  const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
  expect((await ended(server, await submit({ type: "train", groups }))).status).toBe("succeeded");
  expect(engine.roots.get("m@1")).toBe(policyRoot(1));
});

test("one that was accepted is imported, whether or not it can be unloaded", async () => {
  engine.unload = () => Promise.reject(away());
  expect(await ended(server, await submitImport())).toMatchObject({
    status: "succeeded",
    result: { policy: "m@1" },
  });
  expect(engine.roots.get("m@1")).toBe(policyRoot(1));
});

test("an engine that ends during the check begins it again when it is back", async () => {
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

test("a server that ends during the check leaves an adapter that the next one unloads", async () => {
  const { load } = engine;
  let began: () => void = () => undefined;
  const checking = new Promise<void>((resolve) => void (began = resolve));
  engine.load = async (policy, path) => {
    await load(policy, path);
    began();
    // The adapter is there, and the connection breaks before the answer.
    throw away();
  };
  const { unload } = engine;
  engine.unload = () => Promise.reject(away());
  const id = await submitImport();
  await checking;
  Object.assign(engine, { load });
  await server.state.close();
  Object.assign(engine, { unload });
  expect([...engine.names]).toContain(`m@1.check-${id}`);
  server = await openTestState(folder.path, { engine: () => engine, trainer: fileTrainer() });
  expect((await ended(server, id)).status).toBe("succeeded");
  expect([...engine.names]).toEqual(["m@0", "m@1"]);
});

test.each<[string, RegExp, () => unknown]>([
  ["no config", /adapter_config.json is missing/, () => rm(config())],
  ["no weights", /adapter_model.safetensors is missing/, () => rm(weights())],
  ["a pipe for a config", /config.json is not a regular file/, () => pipe(config())],
  ["pipe for weights", /safetensors is not a regular file/, () => pipe(weights())],
  ["a folder for a config", /not a regular file/, () => replace(config(), (f) => mkdir(f))],
  ["a device", /outside of its folder/, () => replace(config(), (f) => symlink("/dev/zero", f))],
  ["a huge config", /has 2000000 bytes/, () => truncate(config(), 2_000_000)],
  ["huge weights", /has 8000000000 bytes/, () => truncate(weights(), 8_000_000_000)],
  ["empty weights", /ends within its header/, () => truncate(weights(), 0)],
  ["half a header", /ends within its header/, () => truncate(weights(), 20)],
  ["half of its data", /4 bytes of tensors, and its header says 8/, () => cutData()],
  ["a lying length", /ends within/, () => writeFile(weights(), withHeaderLength(2 ** 52))],
  ["a short length", /not that of a safetensors/, () => writeFile(weights(), withHeaderLength(9))],
])("%s is a bad adapter, and the server goes on", async (_, message, damage) => {
  await damage();
  // More of them than there are threads for files.
  const ids = [];
  for (let i = 0; i < 5; i++) ids.push(await submitImport());
  for (const id of ids) {
    const { status, error } = await ended(server, id);
    expect({ status, code: error?.code }).toEqual({ status: "failed", code: "bad_adapter" });
    expect(error?.message).toMatch(message);
  }
  expect(loaded).toEqual(["m@0"]);
});

async function replace(file: string, make: (file: string) => Promise<unknown>): Promise<void> {
  await rm(file);
  await make(file);
}
const pipe = (file: string) =>
  replace(file, (name) => Promise.resolve(execFileSync("mkfifo", [name])));
const cutData = (): Promise<void> => truncate(weights(), adapter.byteLength - 4);
