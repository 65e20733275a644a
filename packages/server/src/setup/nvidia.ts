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

/** The memory of one card, in bytes. */
export interface CardMemory {
  total: number;
  free: number;
}

/**
 * What the driver says of a card, by its index or its name, as CUDA_VISIBLE_DEVICES has it. Null where it does not
 * say: there is no such card, or no nvidia-smi.
 */
export async function cardMemory(card: string): Promise<CardMemory | null> {
  try {
    const query = ["--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"];
    const { stdout } = await run("nvidia-smi", ["-i", card, ...query], { timeout: 20_000 });
    return cardMemoryOf(stdout);
  } catch {
    return null;
  }
}

const mebibyte = 1024 ** 2;

function cardMemoryOf(text: string): CardMemory | null {
  const [, total, free] = /^\s*(\d+)\s*,\s*(\d+)\s*$/.exec(text) ?? [];
  if (total === undefined || free === undefined) return null;
  return { total: Number(total) * mebibyte, free: Number(free) * mebibyte };
}

function driverOf(text: string): NvidiaDriver | null {
  const version = /\b(\d{3,}\.\d+(?:\.\d+)?)\b/.exec(text)?.[1];
  return version === undefined ? null : { version };
}
