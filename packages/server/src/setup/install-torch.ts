import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { HoneError } from "@hone/core";
import { queryDownload, type Download } from "./downloads.ts";
import type { EnvironmentPlan } from "./environment.ts";
import { torchSources, torchVersion } from "./torch.ts";
import type { SetupOptions } from "./virtual-environment.ts";

export interface TorchDownload extends Download {
  what: string;
}

/** The first place that has this build. Packages that the requirements of `without` pin do not count to its size. */
export async function findTorch(
  plan: EnvironmentPlan,
  options: SetupOptions,
  without?: string,
): Promise<TorchDownload> {
  const failures: string[] = [];
  for (const { requirement, index, what } of torchSources(plan.torch, plan.interpreter.platform)) {
    const args = [...(index === null ? [] : ["--index-url", index]), requirement];
    const query = await queryDownload(plan, args, options, without);
    if ("download" in query) return { ...query.download, what };
    failures.push(`${requirement}${index === null ? "" : ` from ${index}`}: ${query.failure}`);
  }
  throw new HoneError(
    `Setting up the ${plan.name} environment failed: torch ${torchVersion} was not found. Check pip's index settings, or name an index with --torch.\n${failures.join("\n")}`,
    { code: "invalid_config", param: "torch" },
  );
}

/** Wheels unpack to about two and a half times their size, and pip holds both for a moment. */
const spaceFactor = 3.5;

/** A disk that fills up in the middle costs the whole download. */
export function checkSpace(plan: EnvironmentPlan, downloads: readonly Download[]): void {
  const bytes = downloads.reduce(
    (sum, { size }) => sum + (size?.remote ?? 0) + (size?.local ?? 0),
    0,
  );
  const { bavail, bsize } = statfsSync(dirname(plan.dir));
  const [needed, free] = [bytes * spaceFactor, bavail * bsize];
  if (free >= needed) return;
  const gigabytes = (n: number): string => `${(n / 1e9).toFixed(1)} GB`;
  throw new HoneError(
    `The environment needs about ${gigabytes(needed)} in ${dirname(plan.dir)}, which has ${gigabytes(free)} free. Make room, or name a folder on another disk in HONE_CACHE.`,
    { code: "disk_full" },
  );
}
