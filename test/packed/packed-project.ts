import { execFile, spawn, type ChildProcess } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { base } from "../support/server.ts";

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** A folder of a user's own, with nothing of the clone in reach. */
export interface PackedProject {
  folder: string;
  run(command: string, args: string[], env?: Record<string, string>): Promise<Ended>;
  /** Runs it until it has printed the pattern, and then interrupts it as Ctrl-C does. */
  interrupt(
    command: string,
    args: string[],
    at: RegExp,
    env?: Record<string, string>,
  ): Promise<Ended>;
  /** `npx @hone/server serve`, until it has printed the two lines to export. */
  serve(args: string[]): Promise<ServedProject>;
}

export interface ServedProject {
  /** HONE_URL and HONE_API_KEY. */
  variables: Record<string, string>;
  stop(): Promise<void>;
}

const stopLimitMs = 60_000;

export function createProject(folder: string): PackedProject {
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, "package.json"),
    '{"name": "agent", "private": true, "type": "module"}',
  );
  cpSync(base, join(folder, "base"), { recursive: true });
  const env = environment(folder);
  return {
    folder,
    run: (command, args, more = {}) =>
      new Promise((resolve) => {
        const options = { cwd: folder, env: { ...env, ...more }, maxBuffer: 1e8 };
        const child = execFile(command, args, options, (_, stdout, stderr) =>
          resolve({ status: child.exitCode, stdout, stderr }),
        );
        child.stdin?.end();
      }),
    interrupt: (command, args, at, more = {}) =>
      new Promise((resolve) => {
        // npx and what it starts: a terminal sends Ctrl-C to all of them.
        const options = { cwd: folder, env: { ...env, ...more }, detached: true };
        const child = spawn(command, args, options);
        child.stdin.end();
        let [stdout, stderr, interrupted] = ["", "", false];
        child.stderr.on("data", (part: Buffer) => (stderr += part.toString()));
        child.stdout.on("data", (part: Buffer) => {
          stdout += part.toString();
          if (interrupted || !at.test(stdout)) return;
          interrupted = true;
          process.kill(-(child.pid ?? 0), "SIGINT");
        });
        child.once("close", (status) => resolve({ status, stdout, stderr }));
      }),
    async serve(args) {
      const child = spawn("npx", ["--no", "@hone/server", "serve", ...args], {
        cwd: folder,
        env,
        // npx and what it starts: one group, which is ended as one.
        detached: true,
        stdio: ["ignore", "pipe", "pipe"],
      });
      return { variables: await printed(child), stop: () => stop(child) };
    },
  };
}

/** As in a terminal of the user's own: without what npm, the tests and the clone have set. */
function environment(folder: string): NodeJS.ProcessEnv {
  const ours =
    /^(npm_|HONE_(?!CACHE$)|NODE_(PATH|OPTIONS|ENV)$|VITEST|INIT_CWD|PYTHON|HF_|TEST$|MODE$)/;
  const inherited = Object.entries(process.env).filter(([name]) => !ours.test(name));
  // The Node that runs this test, alone in its folder: what else is beside it must not come first.
  const bin = join(folder, "..", "bin");
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, "node"));
  const path = (process.env["PATH"] ?? "").split(delimiter);
  return {
    ...Object.fromEntries(inherited),
    PATH: [bin, ...path.filter((entry) => !entry.includes("node_modules"))].join(delimiter),
    HONE_HOME: join(folder, "home"),
    OMP_NUM_THREADS: "1",
    NO_COLOR: "1",
  };
}

function printed(child: ChildProcess): Promise<Record<string, string>> {
  return new Promise((resolve, reject) => {
    const variables: Record<string, string> = {};
    let errors = "";
    child.stderr?.on("data", (part: Buffer) => (errors += part.toString()));
    child.once("exit", () => reject(new Error(`serve ended: ${errors}`)));
    if (!child.stdout) return;
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, name, value] = /^export (HONE_\w+)=(.*)$/.exec(line) ?? [];
      if (name && value) variables[name] = value;
      if (variables["HONE_URL"] && variables["HONE_API_KEY"]) resolve(variables);
    });
  });
}

/** As Ctrl-C does: everything in the group is told. Resolves when nothing of the group is left. */
async function stop({ pid }: ChildProcess): Promise<void> {
  if (pid === undefined) return;
  const send = (signal: NodeJS.Signals | 0): boolean => {
    try {
      return process.kill(-pid, signal);
    } catch {
      return false;
    }
  };
  if (!send("SIGINT")) return;
  const deadline = Date.now() + stopLimitMs;
  while (send(0)) {
    if (Date.now() > deadline) {
      send("SIGKILL");
      throw new Error(`The server did not stop within ${stopLimitMs / 1000} s.`);
    }
    await delay(50);
  }
}

/** Every file under a folder, as paths relative to it. */
export function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}
