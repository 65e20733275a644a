import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** Whether a signal has stopped the process, which goes on where it was when SIGCONT tells it to. */
export function isStopped(pid: number | undefined): boolean {
  const state =
    process.platform === "linux"
      ? readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]
      : execFileSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" });
  return state?.startsWith("T") ?? false;
}
