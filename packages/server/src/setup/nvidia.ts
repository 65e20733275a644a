import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface NvidiaDriver {
  /** `580.159.04` */
  version: string;
}

/** The NVIDIA driver of this machine. Null where there is no GPU that it could run. */
export async function nvidiaDriver(): Promise<NvidiaDriver | null> {
  try {
    const query = ["--query-gpu=driver_version", "--format=csv,noheader"];
    const { stdout } = await run("nvidia-smi", query, { timeout: 20_000 });
    return driverOf(stdout);
  } catch {
    // Containers may have the GPU and not the tool. The kernel's word alone is not enough: a container
    // sees it without being given the device.
    if (!existsSync("/dev/nvidia0")) return null;
    try {
      return driverOf(readFileSync("/proc/driver/nvidia/version", "utf8"));
    } catch {
      return null;
    }
  }
}

function driverOf(text: string): NvidiaDriver | null {
  const version = /\b(\d{3,}\.\d+(?:\.\d+)?)\b/.exec(text)?.[1];
  return version === undefined ? null : { version };
}
