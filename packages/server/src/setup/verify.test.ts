import { appendFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { planEnvironment, type EnvironmentPlan } from "./environment.ts";
import { supportedPythons } from "./python.ts";
import { verifyEnvironment } from "./verify.ts";
import { makeEnvironment } from "./virtual-environment.ts";

const folder = mkdtempSync(join(tmpdir(), "hone-verify-"));
let plan: EnvironmentPlan;
let site: string;
const said: string[] = [];
const options = {
  say: (line: string): void => void said.push(line),
  // A bare environment has pip; the worker's packages are not looked for.
  verify: async ({ python }: EnvironmentPlan) =>
    (await verifyEnvironment(python, { requirements: [] })).problems.filter(isNotTorch),
};
const isNotTorch = (problem: string): boolean => problem !== "torch is missing";
const make = (): Promise<EnvironmentPlan> =>
  makeEnvironment([plan], () => Promise.resolve(), options);

beforeAll(async () => {
  vi.stubEnv("HONE_CACHE", folder);
  for await (const python of supportedPythons()) {
    plan = planEnvironment("worker", python, "cpu");
    break;
  }
  const [major, minor] = plan.interpreter.version.split(".");
  site = join(plan.dir, "lib", `python${major}.${minor}`, "site-packages");
  await make();
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

it("names the packages that are missing", async () => {
  const { problems } = await verifyEnvironment(plan.python);
  expect(problems).toContain("transformers is missing");
  expect(problems).toContain("torch is missing");
});

it("leaves alone what is whole", async () => {
  const own = join(plan.dir, "own");
  writeFileSync(own, "");
  await make();
  expect(existsSync(own)).toBe(true);
});

// Each damages the environment that the one before has repaired.
it.each([
  [
    "a changed file",
    () => appendFileSync(join(site, "pip", "__main__.py"), "# changed\n"),
    /pip is damaged \(pip\/__main__\.py\)/,
  ],
  [
    "a package without its files",
    () => rmSync(join(site, "pip"), { recursive: true }),
    /pip is damaged \(pip\/__init__\.py and \d+ more\)/,
  ],
  [
    "an interpreter that does not run",
    () => {
      rmSync(plan.python);
      writeFileSync(plan.python, "#!/bin/sh\necho gone >&2\nexit 1\n", { mode: 0o755 });
    },
    /its Python does not run \(gone\)/,
  ],
])("repairs %s", async (_, damage, problem) => {
  damage();
  said.length = 0;
  await make();
  expect(said.join("\n")).toMatch(/environment is broken: .*It is made again/);
  expect(said.join("\n")).toMatch(problem);
  const { problems } = await verifyEnvironment(plan.python, { requirements: [], modules: ["pip"] });
  expect(problems.filter(isNotTorch)).toEqual([]);
});
