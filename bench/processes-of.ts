// The processor time of a program and of everything that it starts, by what each process is. Linux: /proc.
import { readdir, readFile } from "node:fs/promises";

export interface CpuWatch {
  /** Role → seconds of processor time so far. */
  seconds(): Record<string, number>;
  stop(): void;
}

/** Looks at the tree below `root` twice a second: what a process used after the last look is not counted. */
export function watchCpu(root: number, roles: Readonly<Record<string, RegExp>>): CpuWatch {
  const seen = new Map<number, { role: string; seconds: number }>();
  let looking = false;
  const look = async () => {
    if (looking) return;
    looking = true;
    for (const one of await processesBelow(root).catch(() => [])) {
      // One that has just ended has its times still, and its command no more.
      const known = seen.get(one.pid)?.role;
      const role = Object.entries(roles).find(([, pattern]) => pattern.test(one.command))?.[0];
      seen.set(one.pid, { role: role ?? known ?? "other", seconds: one.seconds });
    }
    looking = false;
  };
  const timer = setInterval(() => void look(), 500);
  return {
    seconds() {
      const sums: Record<string, number> = {};
      for (const { role, seconds } of seen.values()) sums[role] = (sums[role] ?? 0) + seconds;
      return sums;
    },
    stop: () => clearInterval(timer),
  };
}

interface Process {
  pid: number;
  parent: number;
  command: string;
  seconds: number;
}

async function processesBelow(root: number): Promise<Process[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = (await Promise.all(pids.map(readProcess))).filter((one) => one !== null);
  const parents = new Map(all.map(({ pid, parent }) => [pid, parent]));
  const isBelow = (pid: number | undefined): boolean =>
    pid !== undefined && pid > 1 && (pid === root || isBelow(parents.get(pid)));
  return all.filter(({ pid }) => isBelow(pid));
}

async function readProcess(pid: number): Promise<Process | null> {
  try {
    const [stat, command] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "utf8"),
      readFile(`/proc/${pid}/cmdline`, "utf8"),
    ]);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // proc(5): 4 is the parent, 14 and 15 are the ticks of user and system; these begin with field 3.
    const ticks = Number(fields[11]) + Number(fields[12]);
    return {
      ...{ pid, parent: Number(fields[1]), seconds: ticks / 100 },
      command: command.replaceAll("\0", " "),
    };
  } catch {
    return null;
  }
}
