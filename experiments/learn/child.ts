// Programs that the experiment starts: they end when this one does, and their processor time can be read.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import process from "node:process";
import { createInterface } from "node:readline";

export interface Program {
  pid: number;
  /** What it prints, line by line, until it ends. */
  lines: AsyncIterable<string>;
  /** Closes its standard input, by which it ends; by force where it does not. Resolves to how it ended. */
  stop(): Promise<string>;
}

/** Clock ticks a second of /proc, on every Linux of today. */
const ticks = 100;
const stopLimitMs = 20_000;

/** What it says on standard error goes to the file. */
export function startProgram(
  command: string,
  args: readonly string[],
  { env, log }: { env: Readonly<Record<string, string>>; log: string },
): Program {
  const child: ChildProcess = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ["pipe", "pipe", openSync(log, "a")],
  });
  const ended = once(child, "exit").then(
    ([code, signal]) => `status ${code ?? "none"}, signal ${signal ?? "none"}`,
  );
  if (child.pid === undefined || !child.stdout) throw new Error(`${command} could not be started.`);
  const lines = createInterface({ input: child.stdout });
  return {
    pid: child.pid,
    lines,
    async stop() {
      child.stdin?.end();
      const late = setTimeout(() => child.kill("SIGKILL"), stopLimitMs);
      const how = await ended;
      clearTimeout(late);
      return how;
    },
  };
}

/** Seconds of processor time of a process and all that it started; null where there is no /proc. */
export async function processorSeconds(pid: number): Promise<number | null> {
  const times = new Map<number, { parent: number; seconds: number }>();
  for (const entry of await readdir("/proc").catch(() => [])) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = await readFile(`/proc/${entry}/stat`, "utf8").catch(() => "");
    // After the name, which may hold anything: state, parent, …; user and system time, then those of ended children.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const spent = [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at] ?? 0), 0);
    if (fields.length > 14)
      times.set(Number(entry), { parent: Number(fields[1]), seconds: spent / ticks });
  }
  if (!times.has(pid)) return null;
  const within = (one: number): boolean => {
    for (let at: number | undefined = one; at; at = times.get(at)?.parent)
      if (at === pid) return true;
    return false;
  };
  return [...times].reduce((sum, [one, { seconds }]) => sum + (within(one) ? seconds : 0), 0);
}
