import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

const run = promisify(execFile);
const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const train = (server: TestServer, args: string[], task?: string) =>
  client("train", server, args, task);

/** `npx @hone/client`, by default on a task that the base of the repository can learn. */
function client(
  command: "train" | "probe",
  server: TestServer,
  args: string[],
  task = "one-word-task.ts",
): Promise<{ status: number; stdout: string; stderr: string }> {
  const program = ["--conditions=@hone/source", "--import", import.meta.resolve("tsx")];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...program, file("../../packages/client/src/run/cli.ts"), command, file(task), ...args],
      {
        env: { ...process.env, HONE_URL: server.url, HONE_API_KEY: server.key },
        timeout: 240_000,
      },
      (error, stdout, stderr) => {
        resolve({
          status: typeof error?.code === "number" ? error.code : error ? -1 : 0,
          stdout,
          stderr,
        });
      },
    );
  });
}

it("names the examples where the quickstart is asked for another", async () => {
  const failed = run(process.execPath, ["scripts/quickstart.mjs", "chess"], { cwd: file("../..") });
  await expect(failed).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('no example "chess". Choose 2048, email or inbox.'),
  });
});

it.each(["2048", "inbox"])("npm start in examples/%s needs no build", async (example) => {
  const cwd = file(`../../examples/${example}`);
  const { stdout } = await run("npm", ["start", "--silent", "--", "--help"], { cwd });
  expect(stdout).toContain("Usage: npx @hone/client train src/task.ts [options]");
});

describe("the training of a task of one's own", () => {
  let server: TestServer;
  let out: string;
  beforeAll(async () => {
    out = await mkdtemp(join(tmpdir(), "hone-inbox-"));
    server = await startTestServer();
  });
  afterAll(async () => {
    await server?.close();
    await rm(out, { recursive: true, force: true });
  });

  it("learns, says so, and leaves its figures", async () => {
    const learn = ["--steps", "10", "--lr", "5e-3", "--out", join(out, "learns")];
    const { status, stdout, stderr } = await train(server, [...learn, "--name", "learns"]);
    // The task may be learnt before its steps are used up: then the run stops and says why, and nothing else.
    expect(stderr).toMatch(
      /^(?:\(node:\d+\) HoneWarning: The last 8 batches of learns trained nothing .*\n.*\n)?$/,
    );
    // Once it is learnt, batches whose rewards do not differ stand among the ten steps and are none of them.
    const lines = stdout.match(/^step \d+\/10 \| reward [\d.]+ \| yes [\d.]+ \| /gm) ?? [];
    expect(lines.length).toBeGreaterThanOrEqual(stderr === "" ? 10 : 9);
    expect(stdout).toMatch(
      /^ {2}two digits +trained greedy +1\.00 .* \+1\.00 \[\+1\.00, \+1\.00\]$/m,
    );
    expect(stdout).toContain("It has learnt");
    expect(status).toBe(0);
    const read = (name: string) => readFile(join(out, "learns", name), "utf8");
    const summary = JSON.parse(await read("summary.json"));
    expect(summary).toMatchObject({
      learnt: true,
      policy: expect.stringMatching(/^learns@\d+$/),
      metric: "yes",
    });
    expect(summary.verdict.low).toBeGreaterThan(0);
    const records = (await read("metrics.jsonl"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const steps = records.filter(({ type }) => type === "step");
    expect(steps).toHaveLength(lines.length);
    // The rollouts of a step are played over sockets: what is less was not timed.
    for (const { seconds } of steps) expect(seconds.gather).toBeGreaterThan(0.01);
    const trained = steps.filter((step) => step.trained).length;
    expect(trained).toBe(Number(/: (\d) of 10 are trained\./.exec(stderr)?.[1] ?? 10));
    // Greedy and sampled, the metric and the reward, of base and trained.
    expect(records.filter(({ type }) => type === "evaluation")).toHaveLength(8);
    const played = (await read("trajectories/step-0001.jsonl")).trim().split("\n");
    expect(played.map((line) => JSON.parse(line).trajectories.length)).toEqual([16, 16, 16, 16]);
  });

  it("exits with 1 where nothing was learnt, as with rewards that say nothing", async () => {
    const control = [
      "--shuffle-rewards",
      "--steps",
      "1",
      "--lr",
      "1e-6",
      "--out",
      join(out, "control"),
    ];
    const { status, stdout } = await train(server, [...control, "--name", "control"]);
    expect(stdout).toContain("It has not shown that it learnt");
    expect(status).toBe(1);
  });

  it("refuses to go on with another task than it began with", async () => {
    const resumed = ["--resume", "--out", join(out, "control")];
    const task = "../../examples/readme/src/own-task.ts";
    const { status, stderr } = await train(server, resumed, task);
    expect(stderr).toMatch(/invalid_config: The task has changed since the run in .*control began/);
    expect(status).toBe(1);
  });

  it("leaves nothing of a start that fails its checks", async () => {
    const at = ["--out", join(out, "refused")];
    const nobody = "http://127.0.0.1:9/v1#nobody";
    const refused = await train(server, [...at, "--compare", nobody]);
    expect(refused).toMatchObject({ status: 1, stdout: "" });
    expect(refused.stderr).toMatch(/nobody cannot be compared with/);
    expect(existsSync(join(out, "refused"))).toBe(false);
    const named = await train(server, ["--resume", "--out", join(out, "control"), "--name", "b"]);
    expect(named.stderr).toMatch(/invalid_config: .* trains the model control, not b\./);
  });

  it("is probed before: whether there is something to learn, and what it would take", async () => {
    const price = ["--usd-per-hour", "2", "--json"];
    const probed = await client("probe", server, price);
    const report = JSON.parse(probed.stdout);
    // 64 rollouts in groups of 16; the word that earns something comes now and then.
    expect(report.figures).toMatchObject({ groups: 4, rollouts: 64, failed: 0 });
    expect(report.figures.pass).toMatchObject({ metric: "yes", at: 1, k: 16 });
    expect(report.figures.pass.atK).toBeGreaterThan(report.figures.pass.at1);
    expect(report.verdict).toBe("go");
    expect(report.measured.training).toBeGreaterThan(0);
    expect(report.estimate).toMatchObject({ steps: 10, rollouts: 704, withTraining: true });
    expect(report.estimate.machineUsd).toBeCloseTo(2 * report.estimate.hours, 9);
    expect(probed.status).toBe(0);
    const text = await client("probe", server, ["--rollouts", "32", "--no-train-step"]);
    expect(text.stdout).toMatch(/Go: there is something to learn from\.\n {2}- Rewards differ in/);
    expect(text.stdout).toContain("training not counted");
    // Its models are gone.
    const models = await (await server.fetch("/v1/states")).text();
    expect(models).not.toContain("probe-");
  });

  it("says what a task file lacks", async () => {
    const { status, stderr } = await train(server, [], "../support/wire.ts");
    expect(stderr).toMatch(
      /invalid_config: .*wire\.ts has no task\. Write `export default defineTask\(/,
    );
    expect(status).toBe(1);
    const cut = join(out, "cut.ts");
    await writeFile(cut, "export default {\n  train: [1]\n  heldOut: [2, 3],\n};\n");
    const unread = await train(server, [], cut);
    expect(unread.stderr).toMatch(/^invalid_config: .*cut\.ts cannot be loaded\.[^]*cut\.ts:3:2/);
    expect(unread.stderr).not.toContain("node_modules");
  });

  it("refuses an option that it does not know, and a run that is there", async () => {
    const unknown = await train(server, ["--stepz", "3"]);
    expect(unknown).toMatchObject({ status: 1, stdout: "" });
    expect(unknown.stderr).toMatch(/unknown option '--stepz'/);
    const there = await train(server, ["--out", join(out, "control")]);
    expect(there).toMatchObject({ status: 1, stdout: "" });
    expect(there.stderr).toMatch(/holds a run\. Go on with it by --resume/);
  });
});
