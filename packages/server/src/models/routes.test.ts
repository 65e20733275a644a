import { readdirSync, readlinkSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { appendFile, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../testing/state-test.ts";

const path = "/v1/models/m/policies/0/files/adapter_model.safetensors";

/** Adapters that this process has open. */
function openAdapters(folder: string): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const file = readlinkSync(`/proc/self/fd/${fd}`);
      return file.startsWith(folder) && file.endsWith("adapter_model.safetensors") ? [file] : [];
    } catch {
      // The one that read the folder.
      return [];
    }
  });
}

test("HEAD of a policy's file says its length", async ({ server }) => {
  const content = await (await server.app.request(path)).text();
  const head = await server.app.request(path, { method: "HEAD" });
  expect(head.status).toBe(200);
  expect(head.headers.get("content-length")).toBe(String(content.length));
  expect(await head.text()).toBe("");
  const unknown = await server.app.request(`${path}.txt`, { method: "HEAD" });
  expect(unknown.status).toBe(404);
});

test.runIf(process.platform === "linux")(
  "HEAD of a policy's file opens none",
  async ({ folder, server }) => {
    for (let i = 0; i < 3; i++) await server.app.request(path, { method: "HEAD" });
    expect(openAdapters(folder)).toEqual([]);
    // What would have been seen.
    const { body } = await server.app.request(path);
    expect(openAdapters(folder)).toHaveLength(1);
    await body?.cancel();
  },
);

test.for<[string, number, string, (file: string) => unknown]>([
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
])(
  "a policy's file that is %s is a typed error",
  async ([, status, code, damage], { folder, server }) => {
    await damage(join(folder, "models/m/policies/0/adapter_model.safetensors"));
    expect(await server.call("GET", path)).toMatchObject({ status, json: { error: { code } } });
    expect((await server.app.request(path, { method: "HEAD" })).status).toBe(status);
  },
);
