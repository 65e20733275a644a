import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { RolloutModel } from "../rollouts/rollout-model.ts";
import {
  gatherOne,
  rolloutRoutes,
  startRouteServer,
  type RouteServer,
} from "../testing/route-server.ts";
import { runHarness, type HarnessOptions, type HarnessRun } from "./harness.ts";

let server: RouteServer;
let notes: string;
beforeEach(async () => {
  server = await startRouteServer(rolloutRoutes().routes);
  notes = await mkdtemp(join(tmpdir(), "hone-notes-"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.close();
  await rm(notes, { recursive: true });
});

/** A program in JavaScript, as a harness of one rollout. */
async function played(
  script: string,
  options: Partial<HarnessOptions> = {},
  timeoutMs = 60_000,
): Promise<{ run?: HarnessRun; failure?: unknown }> {
  const model = await server.hone({ maxRetries: 0 }).model({ name: "m" });
  const end: { run?: HarnessRun; failure?: unknown } = {};
  const rollout = async (m: RolloutModel) => {
    try {
      end.run = await runHarness(m, { command: [process.execPath, "-e", script], ...options });
    } catch (error) {
      end.failure = error;
      throw error;
    }
    return { reward: 1, metadata: end.run.files };
  };
  await gatherOne(model, rollout, ["a"], { timeoutMs, maxExceptions: 1 });
  return end;
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    // A zombie that nobody has waited for yet is dead.
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
};
/** Starts a program that SIGTERM does not end, and notes who it is. */
const lasting = (file: string) =>
  `require("node:child_process").spawn("/bin/sh", ["-c", "trap '' TERM; echo $$ > ${file}; while :; do sleep 1; done"], {stdio: "ignore"});`;
const noted = (file: string): number => Number(readFileSync(file, "utf8"));
/** Whoever was killed is there until the system lets it die. */
const dies = async (file: string): Promise<void> => {
  expect(noted(file)).toBeGreaterThan(0);
  await vi.waitUntil(() => !alive(noted(file)), { timeout: 30_000 });
};

it("asks the rollout's model, in a folder of its own whose texts stay", async () => {
  vi.stubEnv("OPENAI_API_KEY", "of-the-user");
  vi.stubEnv("SECRET", "of-the-user");
  const script = `
    const fs = require("node:fs");
    const { OPENAI_BASE_URL: base, OPENAI_API_KEY: key, OPENAI_MODEL: model } = process.env;
    const ask = { model, messages: [{ role: "user", content: fs.readFileSync("in/question.txt", "utf8") }] };
    fetch(base + "/chat/completions", {
      method: "POST",
      headers: { authorization: "Bearer " + key, "content-type": "application/json" },
      body: JSON.stringify(ask),
    }).then((r) => r.json()).then((answer) => {
      fs.mkdirSync(".git");
      fs.writeFileSync(".git/config", "x");
      fs.writeFileSync("answer.txt", answer.choices[0].message.content);
      fs.writeFileSync("env.txt", [Object.keys(process.env).includes("SECRET"), process.env.HOME !== ${JSON.stringify(process.env["HOME"])}].join());
      fs.writeFileSync("half.bin", Buffer.from([0xff, 0xfe, 0x00]));
      fs.writeFileSync("long.txt", "x".repeat(70_000));
      fs.symlinkSync("/etc/passwd", "passwd");
      fs.writeFileSync(process.env.HOME + "/settings.json", "{}");
      process.stdin.on("data", (data) => process.stdout.write("heard " + data));
      process.exitCode = 3;
    });`;
  const { run } = await played(script, { files: { "in/question.txt": "Where?" }, input: "go" });
  expect(run).toEqual({
    ...{ exitCode: 3, stdout: "heard go", stderr: "" },
    files: {
      "answer.txt": expect.any(String),
      "env.txt": "false,true",
      "in/question.txt": "Where?",
    },
    leftOut: [
      ".git/ (not looked into)",
      "half.bin (no text in UTF-8)",
      "long.txt (more than 64 KiB)",
      "passwd (no plain file)",
    ],
  });
});

it("leaves nothing running when the program ends before what it started", async () => {
  const file = join(notes, "pid");
  const { run } = await played(
    `${lasting(file)} const { existsSync, statSync } = require("node:fs");
    setInterval(() => existsSync("${file}") && statSync("${file}").size > 0 && process.exit(0), 20);`,
  );
  expect(run?.exitCode).toBe(0);
  await dies(file);
});

it("kills all of it when the rollout is out of time, and removes the folder", async () => {
  const file = join(notes, "pid");
  const where = join(notes, "cwd");
  const end = await played(
    `${lasting(file)} require("node:fs").writeFileSync("${where}", process.cwd()); setInterval(() => {}, 1000);`,
    {},
    // Both processes are there long before, on a busy machine as well.
    5_000,
  );
  // gather() goes on as soon as the time is up.
  await vi.waitUntil(() => end.failure, { timeout: 30_000 });
  expect(end.failure).toMatchObject({ code: "timeout" });
  expect(end.run).toBeUndefined();
  await dies(file);
  expect(existsSync(readFileSync(where, "utf8"))).toBe(false);
});

const asked = (signal: AbortSignal) => {
  const connection = () => ({ baseURL: "http://h/v1", apiKey: "k", model: "m", fetch });
  return { signal, connection, anthropic: () => ({ ...connection(), authToken: null }) };
};

it("does not begin where the rollout ends while its folder is made", async () => {
  const file = join(notes, "ran");
  const ending = new AbortController();
  const run = runHarness(asked(ending.signal), { command: ["/bin/sh", "-c", `touch ${file}`] });
  ending.abort(new Error("the time is up"));
  await expect(run).rejects.toThrow("the time is up");
  expect(existsSync(file)).toBe(false);
});

// Whoever may do everything can read and remove everything too.
it("leaves out by name what cannot be read, and removes what was made read-only", async () => {
  const program = `
    import(${JSON.stringify(join(import.meta.dirname, "harness.ts"))}).then(async ({ runHarness }) => {
      if (process.getuid() === 0) process.setuid(65534);
      const connection = () => ({ baseURL: "h", apiKey: "k", model: "m" });
      const model = { signal: new AbortController().signal, connection, anthropic: connection };
      const script = "mkdir -p shut $HOME/cache/of && echo x > file && echo x > $HOME/cache/of/it && chmod 000 shut file && chmod -R a-w $HOME/cache";
      const { files, leftOut } = await runHarness(model, { command: ["/bin/sh", "-c", script], files: { "..kept": "y" } });
      console.log(JSON.stringify({ files, leftOut }));
    });`;
  chmodSync(notes, 0o777);
  const child = spawn(
    process.execPath,
    ["--import", "tsx", "--conditions=@hone/source", "-e", program],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, TMPDIR: notes, HOME: notes } },
  );
  let said = "";
  child.stdout.on("data", (data: Buffer) => (said += data.toString()));
  await once(child, "close");
  expect(JSON.parse(said)).toEqual({
    files: { "..kept": "y" },
    leftOut: ["file (cannot be read: EACCES)", "shut/ (cannot be read: EACCES)"],
  });
  expect(readdirSync(notes).filter((name) => name.startsWith("hone-harness-"))).toEqual([]);
});

it("says what to do where the program is missing, or a file is outside", async () => {
  const missing = await played("", { command: ["no-such-harness"] });
  expect(missing.failure).toMatchObject({
    code: "invalid_config",
    message: expect.stringMatching(/no-such-harness could not be started.*Install it/s),
  });
  const text = join(notes, "text");
  writeFileSync(text, "no program", { mode: 0o600 });
  const closed = await played("", { command: [text] });
  expect(closed.failure).toMatchObject({ code: "invalid_config" });
  const own = await played('console.error("it was not found"); process.exit(127)');
  expect(own.run).toMatchObject({ exitCode: 127 });
  const outside = await played("", { files: { "../x": "" } });
  expect(outside.failure).toMatchObject({ code: "invalid_config" });
});

it("ends with this process, even where that is killed", async () => {
  const file = join(notes, "pid");
  const source = join(import.meta.dirname, "harness.ts");
  const model = `{ signal: new AbortController().signal, connection: () => ({}), anthropic: () => ({}) }`;
  const program = `
    import(${JSON.stringify(source)}).then(({ runHarness }) => runHarness(${model}, {
      command: ["/bin/sh", "-c", "echo $$ > ${file}; sleep 600"],
      env: { OPENAI_BASE_URL: "", OPENAI_API_KEY: "", OPENAI_MODEL: "", ANTHROPIC_BASE_URL: "", ANTHROPIC_API_KEY: "", ANTHROPIC_MODEL: "" },
    }));`;
  const child = spawn(
    process.execPath,
    ["--import", "tsx", "--conditions=@hone/source", "-e", program],
    { stdio: "inherit", env: { ...process.env, TMPDIR: notes } },
  );
  await vi.waitUntil(() => existsSync(file) && noted(file) > 0, { timeout: 60_000 });
  expect(alive(noted(file))).toBe(true);
  child.kill("SIGKILL");
  await once(child, "exit");
  await dies(file);
});
