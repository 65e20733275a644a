import { cp } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  type AdapterList,
  adapterList,
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "./testing/fixtures.ts";

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
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

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
