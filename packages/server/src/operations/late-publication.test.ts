import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { encodeSafetensors } from "../step-data/safetensors.ts";
import type { TestState } from "../testing/fixtures.ts";
import { test } from "../testing/state-test.ts";

const late = () => new HoneError("It did not load it in 30 s.", { code: "engine_unavailable" });

/** Files are read and written in real time, and only waits are shortened. */
async function untilSucceeded(server: TestState, id: string): Promise<void> {
  const began = performance.now();
  for (;;) {
    await vi.advanceTimersByTimeAsync(100);
    if ((await server.call("GET", `/v1/operations/${id}`)).json.status === "succeeded") return;
    if (performance.now() - began > 20_000) throw new Error("it did not come to that");
    await new Promise((next) => setImmediate(next));
  }
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

test("a publication for which the only engine was late is tried again, though that did not start anew", async ({
  engine,
  server,
}) => {
  engine.failNext = late();
  await untilSucceeded(server, await server.submitStep());
  expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
});

test("so is the check of an import, and what hangs in the engine after it is not waited for", async ({
  engine,
  folder,
  server,
}) => {
  const path = join(folder, "imports/mine");
  await cp(join(folder, "models/m/policies/0"), path, { recursive: true });
  const tensors = { a: { type: "F32", data: Float32Array.of(1, 2) } } as const;
  await writeFile(join(path, "adapter_model.safetensors"), encodeSafetensors(tensors, {}));
  engine.failNext = late();
  const { unload } = engine;
  // The first one hangs until the adapter is asked for again.
  let isAskedAgain = (): void => undefined;
  const askedAgain = new Promise<void>((resolve) => (isAskedAgain = resolve));
  const { load } = engine;
  engine.load = async (adapter) => {
    if (engine.calls.some((call) => call.startsWith("load m@1"))) isAskedAgain();
    await load(adapter);
  };
  engine.unload = async (policy) => {
    await askedAgain;
    await unload(policy);
  };
  const submitted = await server.submit({ type: "import", path });
  await untilSucceeded(server, submitted.json.id);
  expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
});
