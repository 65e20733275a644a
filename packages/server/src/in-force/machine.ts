import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import type { ServerOptionsInForce } from "@hone/core";
import { cardMemory } from "../setup/nvidia.ts";

export type Machine = ServerOptionsInForce["machine"];

const mostCards = 64;

/** What this machine, or its container, has now. */
export async function readMachine(dataDir: string): Promise<Machine> {
  const limit = process.constrainedMemory();
  // Without a limit it may be 0, or more than there is.
  const memory = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  const disk = await statfs(dataDir).catch(() => null);
  return {
    ...{ cores: availableParallelism(), memory },
    freeMemory: Math.min(process.availableMemory(), memory),
    freeDisk: disk && disk.bavail * disk.bsize,
    cards: await visibleCards(process.env["CUDA_VISIBLE_DEVICES"]),
    bfloat16: hasBfloat16(cpuInfo()),
  };
}

/** @param visible CUDA_VISIBLE_DEVICES, which names them; all where it is not set */
export async function visibleCards(
  visible: string | undefined,
  read: typeof cardMemory = cardMemory,
): Promise<Machine["cards"]> {
  if (visible !== undefined) {
    const named = visible
      .split(",")
      .map((one) => one.trim())
      .filter(Boolean);
    const all = await Promise.all(named.map((card) => read(card)));
    return all.filter((one) => one !== null);
  }
  const cards: Machine["cards"] = [];
  while (cards.length < mostCards) {
    const card = await read(String(cards.length));
    if (!card) break;
    cards.push(card);
  }
  return cards;
}

export function hasBfloat16(cpuinfo: string): boolean {
  return /^flags\s*:.*\b(avx512_bf16|amx_bf16)\b/m.test(cpuinfo);
}

function cpuInfo(): string {
  try {
    return readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return "";
  }
}
