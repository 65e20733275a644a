import { readdirSync, readlinkSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { appendFile, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  adapterList,
  fileTrainer,
  openTestState,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";

const path = "/v1/models/m/policies/0/files/adapter_model.safetensors";
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let server: TestState;
beforeEach(async () => {
  folder = await temporaryFolder();
  const engine = adapterList();
  server = await openTestState(folder.path, { engine: () => engine, trainer: fileTrainer() });
  await server.call("PUT", "/v1/models/m", {});
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

/** Adapters that this process has open. */
function openAdapters(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const file = readlinkSync(`/proc/self/fd/${fd}`);
      return file.startsWith(folder.path) && file.endsWith("adapter_model.safetensors")
        ? [file]
        : [];
    } catch {
      // The one that read the folder.
      return [];
    }
  });
}

test("HEAD of a policy's file says its length", async () => {
  const content = await (await server.app.request(path)).text();
  const head = await server.app.request(path, { method: "HEAD" });
  expect(head.status).toBe(200);
  expect(head.headers.get("content-length")).toBe(String(content.length));
  expect(await head.text()).toBe("");
  const unknown = await server.app.request(`${path}.txt`, { method: "HEAD" });
  expect(unknown.status).toBe(404);
});

test.runIf(process.platform === "linux")("HEAD of a policy's file opens none", async () => {
  for (let i = 0; i < 3; i++) await server.app.request(path, { method: "HEAD" });
  expect(openAdapters()).toEqual([]);
  // What would have been seen.
  const { body } = await server.app.request(path);
  expect(openAdapters()).toHaveLength(1);
  await body?.cancel();
});

test.each<[string, number, string, (file: string) => unknown]>([
  ["shorter", 422, "bad_adapter", (file) => truncate(file, 3)],
  ["longer", 422, "bad_adapter", (file) => appendFile(file, "x")],
  ["missing", 404, "not_found", (file) => rm(file)],
  [
    "a pipe",
    422,
    "bad_adapter",
    async (file) => {
      await rm(file);
      execFileSync("mkfifo", [file]);
    },
  ],
])("a policy's file that is %s is a typed error", async (_, status, code, damage) => {
  await damage(join(folder.path, "models/m/policies/0/adapter_model.safetensors"));
  expect(await server.call("GET", path)).toMatchObject({ status, json: { error: { code } } });
  expect((await server.app.request(path, { method: "HEAD" })).status).toBe(status);
});
