import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { loadTask } from "./task-file.ts";
import { requireTask } from "./task.ts";
import { fingerprintOf, sourceOf } from "./task-fingerprint.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-task-"));
  await write("task.ts", 'import { score } from "./reward.ts";\nimport "node:path";');
  await write("reward.ts", "export * from './words.js';\nimport { a } from './task.ts';");
  await write("words.ts", "export const yes = 1;");
});
afterEach(() => rm(folder, { recursive: true }));

const write = (name: string, text: string) => writeFile(join(folder, name), text);
const task = { metric: "exact", heldOut: [{ mail: 1 }, { mail: 2 }] };
const take = async (given: Partial<typeof task> = {}) =>
  fingerprintOf({ ...task, ...given }, await sourceOf(join(folder, "task.ts")));

it("is the same for the same task", async () => {
  expect(await take()).toEqual(await take());
  expect(await take()).toEqual({
    metric: "exact",
    heldOutScenarios: expect.stringMatching(/^[0-9a-f]{16}$/),
    taskSource: expect.stringMatching(/^[0-9a-f]{16}$/),
  });
});

it("is another for other scenarios or another metric", async () => {
  const one = await take();
  const { heldOutScenarios, ...rest } = await take({ heldOut: [{ mail: 1 }, { mail: 3 }] });
  expect(heldOutScenarios).not.toBe(one.heldOutScenarios);
  expect(rest).toEqual({ metric: one.metric, taskSource: one.taskSource });
  expect(await take({ metric: "json" })).toEqual({ ...one, metric: "json" });
});

it.each(["task.ts", "reward.ts", "words.ts"])("is another where %s has changed", async (file) => {
  const one = await take();
  await write(file, "export const yes = 2;");
  expect((await take()).taskSource).not.toBe(one.taskSource);
});

const whole =
  "export default { train: [1], heldOut: [2, 3], rollout: () => 0, settings: { size: 3 } };";

it("a task file is JavaScript or TypeScript, and has its task as default export", async () => {
  await write("task.mjs", whole);
  const { task: loaded, taskSource } = await loadTask(join(folder, "task.mjs"));
  expect(loaded).toMatchObject({ train: [1], heldOut: [2, 3], settings: { size: 3 } });
  expect(taskSource).toMatch(/^[0-9a-f]{16}$/);
});

it.each([
  ["none.mjs", "export const train = [1];", /none\.mjs has no task\. Write `export default define/],
  ["number.mjs", "export default 3;", /has no task: its default export is the number 3\. Write/],
  [
    "syntax.mjs",
    "export default {\n  train: [1]\n  heldOut: [2] };",
    /cannot be loaded\..*syntax\.mjs/s,
  ],
  ["import.mjs", 'import "@hone/none";', /cannot be loaded\. .*Cannot find package '@hone\/none'/],
  ["throws.mjs", "\nthrow new Error('boom');", /cannot be loaded\. Error: boom\n.*throws\.mjs:2/],
  ["bare.mjs", "export default { train: [1] };", /needs heldOut, .* and rollout, a function/],
  ["more.mjs", whole.replace("settings", "setings"), /has no option "setings"/],
  ["both.mjs", whole.replace("[2, 3]", "[1, 3]"), /held/],
])("of %s it says what is wrong", async (name, text, message) => {
  await write(name, text);
  await expect(loadTask(join(folder, name))).rejects.toThrow(message);
});

it("says that there is no such file", async () => {
  await expect(loadTask(join(folder, "absent.ts"))).rejects.toMatchObject({
    code: "invalid_config",
    message: expect.stringMatching(/absent\.ts is not there\.$/),
  });
  await expect(loadTask(folder)).rejects.toThrow(/is no file: name the task's file in it\.$/);
});

it.each(["base", "metric", "seed", "noColor", "help", "serverWait"])(
  "has no setting called %s",
  (name) => {
    const rollout = () => Promise.resolve(1);
    const named = { train: [1], heldOut: [2, 3], rollout, settings: { [name]: 1 } };
    expect(() => requireTask("defineTask()", named)).toThrow(`cannot be called "${name}"`);
  },
);
