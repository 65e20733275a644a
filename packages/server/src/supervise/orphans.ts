import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "pino";
import { z } from "zod";

/** The children of a data directory's server, so that the next one can end those that outlived it. */
export interface ChildRegister {
  /** Notes a child that begins. It replaces an earlier one of the same name. */
  note(name: string, pid: number): void;
  /** Forgets all children. Call it when every child has ended. */
  clear(): void;
}

const entrySchema = z.object({ pid: z.int().positive(), startedAt: z.string() });
const fileSchema = z.record(z.string(), entrySchema);

/**
 * Ends what an earlier server left running. A server's children end when their standard input closes, but a
 * child that is stopped (SIGSTOP, a debugger) cannot notice that and keeps its memory. Hold the data
 * directory's lock: then these children belong to no server that is alive.
 */
export function takeOverChildren(dataDir: string, log: Logger): ChildRegister {
  const path = join(dataDir, "children.json");
  for (const [child, { pid, startedAt }] of Object.entries(read(path))) {
    // The pid may be another process's by now.
    if (startOf(pid) === startedAt) {
      if (end(-pid)) {
        log.warn({ child, pid }, "a child of an earlier server was still there and is ended");
      }
      continue;
    }
    for (const left of leftOf(pid, startedAt).filter(end)) {
      log.warn(
        { child, pid: left },
        "a process that a child of an earlier server had started was still there and is ended",
      );
    }
  }
  rmSync(path, { force: true });
  const children: z.infer<typeof fileSchema> = {};
  return {
    note(name, pid) {
      const startedAt = startOf(pid);
      if (startedAt === null) return;
      children[name] = { pid, startedAt };
      try {
        writeFileSync(path, `${JSON.stringify(children)}\n`, { mode: 0o600 });
      } catch (error) {
        // A full disk must not keep a child from starting. Without the note a child that outlives us may stay.
        log.warn({ child: name, pid, err: error }, "a child could not be written down");
      }
    },
    clear: () => rmSync(path, { force: true }),
  };
}

function end(pid: number): boolean {
  try {
    return process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended, or is no longer ours to end.
    return false;
  }
}

/**
 * What is left of a child that is gone: its own processes, in the group and the session that it led. vLLM's engine
 * core outlives an API server that was killed, and keeps the GPU's memory. While there is such a group, the system
 * gives its number to no new process. Whether it is still that group, the name or the environment says.
 */
function leftOf(leader: number, leaderStartedAt: string): number[] {
  const [boot, ticks] = leaderStartedAt.split(" ");
  const lead = statOf(leader);
  // Somebody else has the number.
  if (lead && lead.state !== "Z") return [];
  return processes().filter((pid) => {
    const stat = statOf(pid);
    if (!stat || pid === leader || stat.group !== leader || stat.session !== leader) return false;
    const isYounger = startOf(pid)?.startsWith(`${boot} `) && stat.startedAt >= Number(ticks);
    return isYounger === true && isOurs(pid);
  });
}

/** By the title that vLLM gives its processes, or by what `hone_vllm.py` and `child.ts` put into the environment. */
function isOurs(pid: number): boolean {
  try {
    if (readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("VLLM::")) return true;
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8");
    return /(^|\0)(HONE_BOOT_ID=|VLLM_RPC_BASE_PATH=[^\0]*hone-vllm-)/.test(environment);
  } catch {
    // It has ended, or is another user's.
    return false;
  }
}

function processes(): number[] {
  try {
    return readdirSync("/proc").map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

function read(path: string): z.infer<typeof fileSchema> {
  try {
    return fileSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch {
    // There is no file, or a death cut it short.
    return {};
  }
}

/** When a process began, on this start of the machine. Null if there is none, or if the system does not say. */
function startOf(pid: number): string | null {
  const stat = statOf(pid);
  if (!stat) return null;
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot} ${stat.startedAt}`;
  } catch {
    return null;
  }
}

interface Stat {
  state: string;
  group: number;
  session: number;
  /** @unit ticks since the start of the machine */
  startedAt: number;
}

function statOf(pid: number): Stat | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in parentheses, may hold anything; the start is the 20th field behind it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state = "", , group, session] = fields;
    return {
      state,
      ...{ group: Number(group), session: Number(session), startedAt: Number(fields[19]) },
    };
  } catch {
    return null;
  }
}
