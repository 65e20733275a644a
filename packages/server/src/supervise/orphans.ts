import { readFileSync, rmSync, writeFileSync } from "node:fs";
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
    if (startOf(pid) !== startedAt) continue;
    try {
      process.kill(-pid, "SIGKILL");
      log.warn({ child, pid }, "a child of an earlier server was still there and is ended");
    } catch {
      // It has just ended, or is no longer ours to end.
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
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in parentheses, may hold anything; the start is the 20th field behind it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot} ${fields[19]}`;
  } catch {
    return null;
  }
}
