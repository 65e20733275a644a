import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import {
  findEnvironment,
  isComplete,
  planEnvironment,
  workerPlans,
  type EnvironmentPlan,
} from "./environment.ts";
import { supportedPythons, type Interpreter } from "./python.ts";
import { setUp } from "./setup.ts";
import { pythonWithoutVenv } from "../testing/broken-python.ts";
import { makeEnvironment, runInside } from "./virtual-environment.ts";

const folder = mkdtempSync(join(tmpdir(), "hone-venvs-"));
let python: Interpreter;
let said: string[];
const say = (line: string): void => void said.push(line);

beforeAll(async () => {
  for await (const found of supportedPythons()) {
    python = found;
    break;
  }
});
beforeEach((test) => {
  said = [];
  vi.stubEnv("HONE_CACHE", join(folder, test.task.id));
  vi.stubEnv("HONE_PYTHON", "");
  vi.stubEnv("HONE_TORCH_INDEX", "cpu");
  return () => vi.unstubAllEnvs();
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

it("goes on to the next Python where one cannot make a virtual environment", async () => {
  vi.stubEnv("PATH", pythonWithoutVenv(join(folder, "two"), python, { working: true }));
  const options = { say };
  const made = await makeEnvironment(
    workerPlans("cpu"),
    // What it was made for: a Python with pip.
    (plan) => runInside(plan, ["-m", "pip", "--version"], options),
    options,
  );
  expect(made.interpreter.executable).toBe(join(folder, "two", "working", "python3"));
  expect(said.join("\n")).toMatch(/broken\/bin\/python3\.11 cannot make/);
  // The server finds it, although another Python comes first.
  expect(await findEnvironment()).toBe(made.python);
  // And the next setup takes it.
  said = [];
  await makeEnvironment(workerPlans("cpu"), () => Promise.reject(new Error("made again")), options);
  expect(said).toEqual([]);
});

it("says why, and what to install, where no Python can", async () => {
  vi.stubEnv("PATH", pythonWithoutVenv(join(folder, "one"), python, { working: false }));
  const failed = setUp("worker", { say });
  await expect(failed).rejects.toMatchObject({ code: "invalid_config" });
  await expect(failed).rejects.toThrow(
    /install python3-venv[^]*python3\.11: status 1[^]*ensurepip/,
  );
  await expect(findEnvironment()).rejects.toThrow("npx @hone/server setup");
});

it("tries each Python once, whatever its names", async () => {
  const bin = join(folder, "names");
  mkdirSync(bin);
  for (const name of ["python3.11", "python3", "python"]) {
    symlinkSync(python.executable, join(bin, name));
  }
  vi.stubEnv("PATH", bin);
  const found: string[] = [];
  for await (const { executable } of supportedPythons()) found.push(executable);
  expect(found).toEqual([join(bin, "python3.11")]);
});

it("is made by one setup at a time", async () => {
  const plan = planEnvironment("worker", python, "cpu");
  let filled = 0;
  const fill = async (own: EnvironmentPlan): Promise<void> => {
    filled++;
    await delay(500);
    // Another setup would have removed it.
    expect(existsSync(own.python)).toBe(true);
  };
  const makers = [1, 2].map(() => makeEnvironment([plan], fill, { say }));
  expect((await Promise.all(makers)).map(({ dir }) => dir)).toEqual([plan.dir, plan.dir]);
  expect(filled).toBe(1);
  expect(said.filter((line) => line.startsWith("Another setup"))).toHaveLength(1);
});

it("stops when it is told to, and what is left then does not count", async () => {
  const stop = new AbortController();
  const tell = (line: string): void => {
    say(line);
    if (line.startsWith("Chosen")) stop.abort();
  };
  const stopped = setUp("worker", { say: tell, signal: stop.signal });
  await expect(stopped).rejects.toMatchObject({ name: "AbortError" });
  const plan = planEnvironment("worker", python, "cpu");
  expect(existsSync(plan.python)).toBe(true);
  expect(isComplete(plan)).toBe(false);
  const left = join(plan.dir, "left-over");
  mkdirSync(left);
  await makeEnvironment([plan], () => Promise.resolve(), { say });
  expect(isComplete(plan)).toBe(true);
  expect(existsSync(left)).toBe(false);
});
