import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const few = ["--groups-per-step", "2", "--group-size", "2", "--verdict-seeds", "2", "--ungated"];
const small = [...few, "--steps", "40"];

/** Processes are told by what /proc says of them. */
const linux = process.platform === "linux";

/** A limit for what does not end. */
const patience = { timeout: 200_000, interval: 200 };

let started: { child: ChildProcess; mark: string } | null = null;
let out: string;

/** A variable that every descendant inherits tells which processes are left. */
function quickstart(command: string[], env: Record<string, string> = {}): typeof started & object {
  const mark = `HONE_TEST_MARK=${randomUUID()}`;
  const folder = command.includes("--resume") ? [] : ["--out"];
  const child = spawn(command[0] ?? "", [...command.slice(1), ...folder, out], {
    cwd: root,
    detached: true,
    env: { ...process.env, ...env, HONE_TEST_MARK: mark.split("=")[1] },
    stdio: ["ignore", "pipe", "pipe"],
  });
  started = { child, mark };
  return started;
}

function left(mark: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, "utf8").includes(mark) && !isDying(pid);
      } catch {
        return false;
      }
    });
}

/** Whoever was killed is there until the system lets it die, on a busy machine also after who killed it has ended. */
function isDying(pid: number): boolean {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const pending = [...status.matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)];
  const sigkill = 1n << 8n;
  if (pending.some(([, set]) => (BigInt(`0x${set}`) & sigkill) !== 0n)) return true;
  const exiting = 0x4; // PF_EXITING, among the flags behind state and six other fields
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const flags = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6]);
  return (flags & exiting) !== 0;
}

/** Of those that end by themselves once the quickstart is gone. */
async function nothingLeft(mark: string): Promise<void> {
  await expect.poll(() => left(mark), patience).toEqual([]);
}

function says(child: ChildProcess, pattern: RegExp): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    let text = "";
    const read = (part: Buffer): void => {
      text += part.toString();
      const found = pattern.exec(text);
      if (found) resolve(found);
    };
    child.stdout?.on("data", read);
    child.stderr?.on("data", read);
    child.once("close", (code) => reject(new Error(`it ended with ${code}: ${text}`)));
  });
}

const exitOf = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => void child.once("exit", resolve));

/** It may end by itself meanwhile. */
function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

beforeEach(() => {
  out = mkdtempSync(join(tmpdir(), "hone-quickstart-"));
});
afterEach(() => {
  for (const pid of started ? left(started.mark) : []) end(pid);
  started = null;
  rmSync(out, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

describe.skipIf(!linux)("quickstart leaves no process behind", () => {
  const script = [process.execPath, "scripts/quickstart.mjs", ...small];

  it.each([
    ["parent alone", (child: ChildProcess) => child.kill("SIGINT")],
    ["whole group", (child: ChildProcess) => process.kill(-(child.pid ?? 0), "SIGINT")],
  ])("when Ctrl-C reaches the %s while the agent plays", async (_whom, interrupt) => {
    const { child, mark } = quickstart(script);
    const ended = exitOf(child);
    const told = says(child, /To go on: .* --resume (\S+)/);
    await says(child, /evaluating/);
    await delay(500);
    expect(left(mark).length).toBeGreaterThanOrEqual(5);
    interrupt(child);
    expect(await ended).toBe(130);
    expect((await told)[1]).toBe(out);
    expect(left(mark)).toEqual([]);
  });

  it.each([300, 1_500, 4_000])("when Ctrl-C comes after %d ms", async (ms) => {
    const { child, mark } = quickstart(script);
    const ended = exitOf(child);
    await delay(ms);
    child.kill("SIGINT");
    expect([130, null]).toContain(await ended);
    expect(left(mark)).toEqual([]);
  });

  it.each([
    ["Ctrl-C comes under npm", (pid: number) => process.kill(-pid, "SIGINT")],
    // A shell stands between npm and the script, and dies of this one without passing it on.
    ["npm alone is ended", (pid: number) => process.kill(pid, "SIGTERM")],
  ])("when %s", async (_what, interrupt) => {
    const { child, mark } = quickstart(["npm", "run", "quickstart", "--", ...small]);
    await says(child, /evaluating/);
    interrupt(child.pid ?? 0);
    await nothingLeft(mark);
  });

  it("when it is interrupted while Python is set up", async () => {
    const cache = mkdtempSync(join(tmpdir(), "hone-cache-"));
    const { child, mark } = quickstart(script, { HONE_PYTHON: "", HONE_CACHE: cache });
    const ended = exitOf(child);
    await says(child, /making the worker environment/);
    await delay(500);
    child.kill("SIGINT");
    await ended;
    expect(left(mark)).toEqual([]);
    rmSync(cache, { recursive: true, force: true, maxRetries: 5 });
  });

  it("when it is killed outright", async () => {
    const { child, mark } = quickstart(script);
    await says(child, /evaluating/);
    child.kill("SIGKILL");
    await nothingLeft(mark);
  });
});

/** The steps that metrics.jsonl has a line of. */
function stepsIn(metrics: string): number[] {
  return readFileSync(metrics, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { type: string; step: number })
    .flatMap(({ type, step }) => (type === "step" ? [step] : []));
}

it.skipIf(!linux)(
  "killed after a step, --resume goes on with the next one and says where its files are",
  async () => {
    const script = [process.execPath, "scripts/quickstart.mjs"];
    // More steps than it may go on with before it is dead.
    const steps = 6;
    const first = quickstart([...script, ...few, "--steps", String(steps)]);
    await says(first.child, /step 1\/6 /);
    process.kill(first.child.pid ?? 0, "SIGKILL");
    await nothingLeft(first.mark);
    const done = stepsIn(join(out, "metrics.jsonl"));
    expect(done.length).toBeLessThan(steps);

    const again = quickstart([...script, ...few, "--steps", String(steps)]);
    await expect(says(again.child, /never said/)).rejects.toThrow(/holds a run.*--resume/);

    // The options are those that it began with.
    const { child } = quickstart([...script, "--resume"]);
    const told = await says(child, /step \d\/6 [^]*Files: .*\n/);
    const next = Number(/^step (\d)\/6 /.exec(told[0])?.[1]);
    // What was in training when it was killed, the server has ended.
    expect([done.length + 1, done.length + 2]).toContain(next);
    const named = [...told[0].matchAll(/(?:Metrics|Adapter|Files:) +(\/\S+)/g)].map(
      ([, path = ""]) => path,
    );
    const [metrics = "", adapter = "", files] = named;
    expect(files).toBe(out);
    const rest = Array.from({ length: steps - next + 1 }, (_, i) => next + i);
    expect(stepsIn(metrics)).toEqual([...done, ...rest]);
    expect(existsSync(join(adapter, "adapter_model.safetensors"))).toBe(true);
    expect(told[0]).toMatch(/^Wall time .* over 2 starts$/m);
  },
);

it.skipIf(!linux)(
  "exits with 1 where nothing was learnt, and with 0 where it is ungated",
  async () => {
    const script = [process.execPath, "scripts/quickstart.mjs"];
    // No turn fits beside so long an answer: all games end as they begin, and no luck can make a difference.
    const nothing = ["--steps", "0", "--verdict-seeds", "16", "--answer-tokens", "1000000"];
    const gated = quickstart([...script, ...nothing]);
    const refused = exitOf(gated.child);
    await says(gated.child, /It has not shown that it learnt[^]*Files: /);
    expect(await refused).toBe(1);
    const summary = JSON.parse(readFileSync(join(out, "summary.json"), "utf8"));
    expect(summary).toMatchObject({ verdict: { pairs: 16, low: 0, high: 0 }, adapter: null });
    expect(summary.metrics.cut).toMatchObject({ before: 1, after: 1 });

    const ungated = quickstart([...script, "--ungated", "--resume"]);
    const passed = exitOf(ungated.child);
    await says(ungated.child, /It has not shown that it learnt[^]* over 2 starts[^]*Files: /);
    expect(await passed).toBe(0);
  },
);

it.skipIf(!linux)("a start that was refused is no run that goes on", async () => {
  const refused = quickstart([process.execPath, "scripts/quickstart.mjs", ...small, "--size", "1"]);
  const ended = exitOf(refused.child);
  await says(refused.child, /--size is the number of cells of a side, 2 to 26, not 1\./);
  expect(await ended).toBe(1);
  expect(readdirSync(out).filter((name) => name.endsWith(".json"))).toEqual([]);
});

it.skipIf(!linux)("a folder in which nothing can be made is refused", async () => {
  const folder = out;
  try {
    out = "/proc/hone-quickstart/run";
    const { child } = quickstart([process.execPath, "scripts/quickstart.mjs", ...small]);
    const ended = exitOf(child);
    await says(
      child,
      /The folder \/proc\/hone-quickstart cannot be made \(.*\)\. Name another one\./,
    );
    expect(await ended).toBe(1);
  } finally {
    out = folder;
  }
});

it("refuses a verdict over a handful of games before anything is served", async () => {
  const program = [
    "--conditions=@hone/source",
    "--import",
    "tsx",
    "packages/client/src/run/cli.ts",
  ];
  const task = ["train", "examples/2048/src/task.ts", "--held-out", "2"];
  const { child } = quickstart([process.execPath, ...program, ...task]);
  const ended = exitOf(child);
  await says(child, /2 held-out scenarios are too few for a verdict: give at least 16, or ungated/);
  expect(await ended).toBe(1);
});
