import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, it, vi } from "vitest";
import { findEnvironment, isComplete, markComplete, planEnvironment } from "./environment.ts";
import { defaultDataDir } from "@hone/transport/node";
import { cacheDir } from "./paths.ts";
import { supportedPythons, type Interpreter } from "./python.ts";
import { setUp } from "./setup.ts";

const cache = mkdtempSync(join(tmpdir(), "hone-envs-"));
beforeEach(() => {
  vi.stubEnv("HONE_CACHE", cache);
  vi.stubEnv("HONE_PYTHON", "");
  vi.stubEnv("HONE_TORCH_INDEX", "cpu");
});
afterEach(() => {
  vi.unstubAllEnvs();
});
afterAll(() => rmSync(cache, { recursive: true, force: true }));

async function firstPython(): Promise<Interpreter> {
  for await (const python of supportedPythons()) return python;
  throw new Error("supportedPythons throws where there is none");
}

it("keeps caches where the machine keeps them, and data at home", () => {
  expect(cacheDir({ HONE_CACHE: "/a", XDG_CACHE_HOME: "/b" })).toBe("/a");
  expect(cacheDir({ XDG_CACHE_HOME: "/b" })).toBe("/b/hone");
  expect(cacheDir({})).toMatch(/\/\.cache\/hone$/);
  expect(defaultDataDir({ HONE_HOME: "/data" })).toBe("/data");
  expect(defaultDataDir({})).toMatch(/\/\.hone$/);
});

it("has one place for the same requirements, another for others", async () => {
  const python = await firstPython();
  const worker = planEnvironment("worker", python, "cpu");
  expect(planEnvironment("worker", python, "cpu")).toEqual(worker);
  expect(dirname(worker.dir)).toBe(join(cache, "envs"));
  const others = [
    planEnvironment("test", python, "cpu"),
    planEnvironment("worker", { ...python, executable: "/other/python" }, "cpu"),
    planEnvironment("worker", python, "cuda"),
  ];
  expect(new Set([worker, ...others].map(({ dir }) => dir)).size).toBe(4);
  expect(Number(python.version.split(".")[1])).toBeGreaterThanOrEqual(11);
});

it("counts only once it is complete, and no longer when its interpreter is gone", async () => {
  const plan = planEnvironment("worker", await firstPython(), "cpu");
  await expect(findEnvironment()).rejects.toMatchObject({ code: "invalid_config" });
  mkdirSync(join(plan.dir, "bin"), { recursive: true });
  symlinkSync(process.execPath, plan.python);
  expect(isComplete(plan)).toBe(false);
  markComplete(plan);
  expect(isComplete(plan)).toBe(true);
  expect(await findEnvironment()).toBe(plan.python);
  rmSync(plan.python);
  symlinkSync("/removed/since/python3", plan.python);
  expect(isComplete(plan)).toBe(false);
  await expect(findEnvironment()).rejects.toThrow("npx @hone/server setup");
});

it("takes HONE_PYTHON as it is, if it runs", async () => {
  const { executable } = await firstPython();
  vi.stubEnv("HONE_PYTHON", executable);
  expect(await findEnvironment()).toBe(executable);
  const said: string[] = [];
  expect(await setUp("worker", { say: (line) => said.push(line) })).toBe(executable);
  expect(said.join()).toContain("used as it is");
  vi.stubEnv("HONE_PYTHON", "/no/python");
  await expect(findEnvironment()).rejects.toThrow("HONE_PYTHON is /no/python");
});

it("says which Pythons it found where none will do", async () => {
  vi.stubEnv("PATH", "/nonexistent");
  await expect(setUp("worker", { say: () => undefined })).rejects.toThrow("Install Python 3.11");
});
