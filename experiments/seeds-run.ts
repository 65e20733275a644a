import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Comparison, EvaluationRow } from "@hone/client";
import { watchCpu } from "../bench/processes-of.ts";
import { ceilingOf } from "./styles/played-games.ts";

export interface SeedRun {
  kind: "fixed" | "fresh" | "control" | "supervised";
  seed: number;
  folder: string;
  /** What the gate looks at. */
  verdict: Comparison;
  /** Levels to compare the scores with: for 2048 what the best single style reaches. */
  references: Record<string, number>;
  table: EvaluationRow[];
  /** Of the whole command, installed before. */
  seconds: number;
  /** Role → seconds of processor time. */
  cpu: Record<string, number>;
  /** Answers asked for; null of supervised training. */
  turns: number | null;
  stages: Record<string, number>;
}

const roles = {
  agent: /client\/src\/run\/cli\.ts train/,
  renderer: /hone_worker\.renderer/,
  worker: /hone_worker/,
  server: /server\/src\/cli\.ts serve/,
} as const;

/** One quickstart in a process of its own; a folder that an interrupted one left is begun anew. */
export async function runQuickstart(
  story: "2048" | "inbox",
  { out, kind, seed, args }: { out: string; kind: string; seed: number; args: string[] },
): Promise<Omit<SeedRun, "kind">> {
  const folder = join(out, `${kind}-${seed}`);
  if (existsSync(folder)) await rm(folder, { recursive: true });
  console.log(`\n${story}, ${kind} seed ${seed}`);
  const began = performance.now();
  const script = fileURLToPath(new URL("../scripts/quickstart.mjs", import.meta.url));
  const given = [story, "--seed", String(seed), "--ungated", ...args, "--out", folder];
  const child = spawn(process.execPath, [script, ...given], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const watch = watchCpu(child.pid ?? process.pid, roles);
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", resolve);
  });
  watch.stop();
  if (status !== 0) throw new Error(`The quickstart ended with ${status}. Its files: ${folder}`);
  const ceiling = story === "2048" ? await ceilingOf(folder) : null;
  const summary = JSON.parse(await readFile(join(folder, "summary.json"), "utf8"));
  return {
    ...{ seed, folder, table: summary.table, verdict: summary.verdict },
    references: ceiling ? { [`${ceiling.name} style`]: ceiling.score } : {},
    seconds: (performance.now() - began) / 1000,
    cpu: watch.seconds(),
    turns: summary.turns,
    stages: summary.stages,
  };
}
