import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "pino";
import { z } from "zod";

/** The children of a data directory's server, so that the next one can end those that outlived it. */
export interface ChildRegister {
  /** To be called when a child begins; one of the same name is in its place from then on. */
  note(name: string, pid: number): void;
  /** Every child has ended. */
  clear(): void;
}

const entrySchema = z.object({ pid: z.int().positive(), startedAt: z.string() });
const fileSchema = z.record(z.string(), entrySchema);

/**
 * Ends what an earlier server left running: its children end when their standard input closes, but one that is
 * stopped (SIGSTOP, a debugger) cannot hear of it, and holds its memory until it goes on. The data directory's lock must be held: then
 * no server that lives has them.
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
        // A full disk must not keep a child from starting: only its end after a death of ours is less sure.
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
    // None, or one that a death cut short.
    return {};
  }
}

/** When a process began, on this start of the machine; null where there is none, or where the system does not say. */
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
