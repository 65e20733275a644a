import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { makeFolder } from "@hone/transport/node";
import { z } from "zod";
import { nvidiaDriver } from "./nvidia.ts";
import { cacheDir } from "./paths.ts";

export const torchVersion = "2.13.0";
/** What the default index's Linux build is made for, and the oldest driver that runs it. */
const cudaVersion = "13.0";
export const oldestDriver = 580;
/** PyTorch's own indexes: one for each kind of build. */
const pytorchIndex = "https://download.pytorch.org/whl";

/** `cpu`, `cuda`, or the URL of a package index whose torch is wanted. */
export type TorchBuild = string;

export interface TorchChoice {
  build: TorchBuild;
  /** The reason, for the operator. */
  why: string;
  /** What was asked for now, by option or variable; null if nothing was. */
  asked: string | null;
}

/** One place that torch may come from. */
export interface TorchSource {
  requirement: string;
  /** Null: the indexes that pip is configured with. */
  index: string | null;
  what: string;
}

/**
 * Which build of torch to install: the one that was asked for, else the one that was asked for last time
 * (the server must find the same environment again), else what the machine can run.
 */
export async function chooseTorch(option?: string): Promise<TorchChoice> {
  const asked = option ?? (process.env["HONE_TORCH_INDEX"] || null);
  if (asked !== null && asked !== "auto") {
    return { build: checkBuild(asked), why: "as asked for", asked };
  }
  const remembered = asked === "auto" ? null : rememberedBuild();
  if (remembered !== null) return { build: remembered, why: "as asked for before", asked };
  return { ...(await whatTheMachineRuns()), asked };
}

async function whatTheMachineRuns(): Promise<{ build: TorchBuild; why: string }> {
  if (process.platform === "darwin") {
    return { build: "cpu", why: "PyTorch has no CUDA build for macOS" };
  }
  const driver = await nvidiaDriver();
  if (!driver) return { build: "cpu", why: "no NVIDIA driver was found" };
  if (Number.parseInt(driver.version, 10) >= oldestDriver) {
    return { build: "cuda", why: `NVIDIA driver ${driver.version}` };
  }
  return {
    build: "cpu",
    why: `NVIDIA driver ${driver.version} is too old for CUDA ${cudaVersion}, which needs ${oldestDriver}; update it, or name an index with an older CUDA: --torch ${pytorchIndex}/cu126`,
  };
}

function checkBuild(build: string): TorchBuild {
  if (build === "cpu" || build === "cuda") return build;
  if (/^(https?|file):\/\/\S+$/.test(build)) return build.replace(/\/+$/, "");
  throw new HoneError(
    `"${build}" is no build of torch. Use auto, cpu, cuda, or the URL of a package index.`,
    { code: "invalid_config", param: "torch" },
  );
}

/** Where this build may come from, the best first. */
export function torchSources(build: TorchBuild, platform: string): TorchSource[] {
  const plain = `torch==${torchVersion}`;
  if (build === "cuda") {
    // `===`: an index that has a CPU build too would otherwise be asked for the "newer" 2.13.0+cpu.
    return [
      { requirement: `torch===${torchVersion}`, index: null, what: "the default build, with CUDA" },
      {
        requirement: plain,
        index: `${pytorchIndex}/cu${cudaVersion.replace(".", "")}`,
        what: "the CUDA build of PyTorch's own index",
      },
    ];
  }
  if (build !== "cpu") return [{ requirement: plain, index: build, what: `the build of ${build}` }];
  if (!platform.startsWith("linux")) {
    return [{ requirement: plain, index: null, what: "the default build" }];
  }
  return [
    { requirement: `${plain}+cpu`, index: null, what: "the CPU build" },
    {
      requirement: `${plain}+cpu`,
      index: `${pytorchIndex}/cpu`,
      what: "the CPU build of PyTorch's own index",
    },
    {
      requirement: plain,
      index: null,
      what: "the default build, which brings CUDA (neither your package index nor PyTorch's own, if it can be reached, has the CPU build)",
    },
  ];
}

const memorySchema = z.object({ torch: z.string() });
const memoryFile = (): string => join(cacheDir(), "torch.json");

function rememberedBuild(): TorchBuild | null {
  if (!existsSync(memoryFile())) return null;
  try {
    return memorySchema.parse(JSON.parse(readFileSync(memoryFile(), "utf8"))).torch;
  } catch {
    return null;
  }
}

/** Remembers what was asked for. It holds until something else is asked for; `auto` forgets it. */
export function rememberTorch({ asked, build }: TorchChoice): void {
  if (asked === null) return;
  if (asked === "auto") {
    rmSync(memoryFile(), { force: true });
    return;
  }
  makeFolder(cacheDir());
  writeFileSync(memoryFile(), `${JSON.stringify({ torch: build })}\n`);
}
