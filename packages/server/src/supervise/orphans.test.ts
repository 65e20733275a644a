import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../testing/fixtures.ts";
import { takeOverChildren } from "./orphans.ts";

const log = pino({ level: "silent" });
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let pid: number;
let exited: Promise<NodeJS.Signals | null>;
beforeEach(async () => {
  folder = await temporaryFolder();
  // As our children do: in a group of its own, with an input that it would end with.
  const child = spawn(process.execPath, ["-e", "process.stdin.resume(); console.log('here')"], {
    detached: true,
    stdio: ["pipe", "pipe", "ignore"],
  });
  exited = new Promise((done) => child.once("exit", (_, signal) => done(signal)));
  await new Promise((ready) => child.stdout.once("data", ready));
  pid = child.pid as number;
});
afterEach(async () => {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
  await exited;
  await folder.remove();
});

const isRunning = (one: number): boolean =>
  existsSync(`/proc/${one}`) && !/\) Z /.test(readFileSync(`/proc/${one}/stat`, "utf8"));
const lives = (): boolean => isRunning(pid);

describe.skipIf(process.platform !== "linux")("a child that outlived its server", () => {
  test("is ended at the next start, also where it is stopped", async () => {
    takeOverChildren(folder.path, log).note("worker", pid);
    process.kill(pid, "SIGSTOP");
    takeOverChildren(folder.path, log);
    expect(await exited).toBe("SIGKILL");
  });

  test("is left alone where its pid is another process's by now", () => {
    takeOverChildren(folder.path, log).note("worker", pid);
    const path = join(folder.path, "children.json");
    const text = readFileSync(path, "utf8").replace(/ \d+"/, ' 1"');
    writeFileSync(path, text);
    takeOverChildren(folder.path, log);
    expect(lives()).toBe(true);
  });

  test("is forgotten once all have ended, and a cut file is none", () => {
    const register = takeOverChildren(folder.path, log);
    register.note("worker", pid);
    register.clear();
    writeFileSync(join(folder.path, "children.json"), '{"worker": {"pi');
    takeOverChildren(folder.path, log);
    expect(lives()).toBe(true);
  });

  test("is looked for beyond its own end: vLLM's engine core outlives its API server", async () => {
    const script = [
      "(exec -a VLLM::EngineCore sleep 600) & echo $!",
      "VLLM_RPC_BASE_PATH=/tmp/hone-vllm-x sleep 600 & echo $!",
      // In the same group, and nothing says that it is ours.
      "sleep 600 & echo $!",
      "wait",
    ];
    const leader = spawn("bash", ["-c", script.join("\n")], {
      ...{
        detached: true,
        stdio: ["ignore", "pipe", "ignore"],
        env: { PATH: process.env["PATH"] },
      },
    });
    const gone = new Promise((done) => leader.once("exit", done));
    let text = "";
    leader.stdout.on("data", (part: Buffer) => void (text += part.toString()));
    await expect.poll(() => text.trim().split("\n").length).toBe(3);
    const [core, tracker, other] = text.trim().split("\n").map(Number) as [number, number, number];
    const pidOf = leader.pid as number;
    try {
      // Each is the shell's copy before it is a program of its own, with its own title and environment.
      const titles = () =>
        [core, tracker, other].map((one) => readFileSync(`/proc/${one}/cmdline`, "utf8"));
      await expect
        .poll(titles)
        .toEqual(["VLLM::EngineCore\u0000600\u0000", ...Array(2).fill("sleep\u0000600\u0000")]);
      takeOverChildren(folder.path, log).note("engine", pidOf);
      process.kill(pidOf, "SIGKILL");
      await gone;
      expect([core, tracker, other].map(isRunning)).toEqual([true, true, true]);
      takeOverChildren(folder.path, log);
      await expect.poll(() => [core, tracker].some(isRunning)).toBe(false);
      expect(isRunning(other)).toBe(true);
    } finally {
      process.kill(-pidOf, "SIGKILL");
    }
  });
});
