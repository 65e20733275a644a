import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { HoneError } from "@hone/core";
import { z } from "zod";

/** The instants in the server's code at which a test may break it. Those of the worker are in `faults.py`. */
export const faultPoints = [
  "operation.stored",
  "operation.resolved",
  "operation.planned",
  "operation.staged",
  "operation.accepted",
  "operation.micro-batch",
  "operation.trained",
  "checkpoint.before-manifest",
  "checkpoint.after-manifest",
  "checkpoint.before-rename",
  "checkpoint.after-rename",
  "checkpoint.before-transaction",
  "checkpoint.after-transaction",
  "publish.before-load",
  "publish.after-load",
  "publish.before-alias",
  "publish.after-alias",
  "operation.before-end",
  "operation.after-end",
  "recovery.before-transaction",
  "retention.after-row",
  "retention.after-manifest",
  "deletion.after-row",
  "deletion.after-files",
  "deletion.after-part",
  "ledger.before-append",
  "ledger.after-append",
  "ledger.before-delivered",
  "ledger.after-delivered",
] as const;
export type FaultPoint = (typeof faultPoints)[number];

const specSchema = z.string().regex(/^[a-z.-]+(@[1-9]\d*)?:(kill|stop|enospc)$/);

interface Armed {
  point: string;
  action: "kill" | "stop" | "enospc";
  /** How many times the point must still be passed. */
  left: number;
  /**
   * The file that is made when the fault strikes. So it strikes once, even if the next process inherits the
   * environment.
   */
  mark: string | null;
}

/**
 * `HONE_FAULT=point[@nth]:action`: at its nth passing the process kills itself (`kill`), stops until it gets
 * SIGCONT (`stop`), or finds the disk full (`enospc`). `HONE_FAULT_MARK` names the file that says it struck.
 */
function readFault(spec: string | undefined, mark: string | undefined): Armed | null {
  if (!spec) return null;
  const parsed = specSchema.safeParse(spec);
  const [where = "", action] = (parsed.data ?? "").split(":");
  const [point = "", nth] = where.split("@");
  const known = point.startsWith("worker.") || faultPoints.some((name) => name === point);
  if (!known) {
    throw new HoneError(
      `HONE_FAULT is "${spec}". It names a fault point and an action, such as "checkpoint.before-rename:kill".`,
      { code: "invalid_config", param: "HONE_FAULT" },
    );
  }
  return { point, action: action as Armed["action"], left: Number(nth ?? 1), mark: mark || null };
}

function strike(armed: Armed, point: FaultPoint): void {
  if (point !== armed.point || --armed.left !== 0) return;
  if (armed.mark !== null) {
    try {
      closeSync(openSync(armed.mark, "wx"));
    } catch {
      return;
    }
  }
  if (armed.action === "enospc") {
    const error = new Error(`ENOSPC: no space left on device (fault ${point})`);
    throw Object.assign(error, { code: "ENOSPC", errno: -28, syscall: "write" });
  }
  process.kill(process.pid, armed.action === "kill" ? "SIGKILL" : "SIGSTOP");
  // The signal may reach another thread first, so this thread waits and does nothing until it takes effect.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
}

const armed = readFault(process.env["HONE_FAULT"], process.env["HONE_FAULT_MARK"]);

/** Does nothing unless `HONE_FAULT` names this point. */
export const fault: (point: FaultPoint) => void = armed
  ? (point) => strike(armed, point)
  : () => undefined;
