import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { expect, vi } from "vitest";
import { encodeSafetensors } from "../step-data/safetensors.ts";
import type { TestState } from "../testing/fixtures.ts";
import { test } from "../testing/state-test.ts";
import { restartTimeoutMs } from "./ready.ts";

const stepMs = 10;

const late = () => new HoneError("It did not load it in 30 s.", { code: "engine_unavailable" });

/** Resolves to how long it waited. Files are read and written in real time, and only waits are shortened. The server starts and ends without. */
async function untilSucceeded(server: TestState, submit: () => Promise<string>): Promise<number> {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const id = await submit();
    const began = performance.now();
    for (let waitedMs = stepMs; ; waitedMs += stepMs) {
      await vi.advanceTimersByTimeAsync(stepMs);
      const { status } = (await server.call("GET", `/v1/operations/${id}`)).json;
      if (status === "succeeded") return waitedMs;
      if (performance.now() - began > 60_000) throw new Error("it did not come to that");
      await new Promise((next) => setImmediate(next));
    }
  } finally {
    vi.useRealTimers();
  }
}

test("a publication for which the only engine was late is tried again, though that did not start anew", async ({
  engine,
  server,
}) => {
  engine.failNext = late();
  let id = "";
  const submit = async () => (id = await server.submitStep());
  expect(await untilSucceeded(server, submit)).toBeLessThan(restartTimeoutMs / 2);
  expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
  const told = await (await server.app.request(`/v1/operations/${id}/events`)).text();
  expect(told).toContain(
    `m@1 is not served yet: ${late().message} It is tried again for up to 10 min, also by a server that is started again meanwhile; until then the name means the policy before it.`,
  );
});

test("so is the check of an import, and what hangs in the engine is not waited for before", async ({
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
  const asked = { again: false };
  engine.unload = async (policy) => {
    while (!asked.again) await new Promise((next) => setTimeout(next, 60_000));
    await unload(policy);
  };
  const { load } = engine;
  engine.load = async (adapter) => {
    asked.again = engine.calls.some((call) => call.startsWith("load m@1"));
    await load(adapter);
  };
  const submit = async () => (await server.submit({ type: "import", path })).json.id as string;
  expect(await untilSucceeded(server, submit)).toBeLessThan(restartTimeoutMs / 2);
  expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
});
