// The baseline of supervised training: from the same rollouts that a run was trained on, the best of each group
// is imitated. The adapter is served and judged like any other.
import { execFile, spawn } from "node:child_process";
import { cp, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { compare, evaluationTable, gather, readGroups } from "@hone/client";
import task from "../examples/2048/src/task.ts";
import { base, startTestServer } from "../test/support/server.ts";
import type { SeedRun } from "./seeds-run.ts";

/** Optimizer steps of 8 games: as many games as the run optimised on, and more. */
const optimizerSteps = [20, 80];

/** The better of both: it is to be beaten at its best. */
export async function superviseBest(run: SeedRun): Promise<Omit<SeedRun, "kind">> {
  const before = await readGroups(join(run.folder, "trajectories", "eval-base.jsonl"));
  const settings = JSON.parse(await readFile(join(run.folder, "settings.json"), "utf8"));
  let best: Omit<SeedRun, "kind"> | null = null;
  for (const steps of optimizerSteps) {
    const began = performance.now();
    const adapter = join(run.folder, `supervised-${steps}`);
    await imitate(run.folder, adapter, steps);
    const server = await startTestServer();
    try {
      // The server imports from its own folder alone.
      const inside = join(server.dataDir, "imports", "supervised");
      await mkdir(join(server.dataDir, "imports"), { recursive: true });
      await cp(adapter, inside, { recursive: true });
      const model = await server.hone.model({ name: "supervised" });
      await server.fetch("/v1/models/supervised/operations", {
        method: "POST",
        body: JSON.stringify({ clientToken: "import", op: { type: "import", path: inside } }),
      });
      while ((await model.info()).served < 1) await new Promise((done) => setTimeout(done, 100));
      const { maxModelLen } = await model.info();
      const how = {
        ...{ temperature: 1, answerTokens: 8, contextTokens: maxModelLen },
        settings: { size: settings.size, target: settings.target },
      };
      const scenarios = before.map(({ trajectories }) => ({
        seed: Number(trajectories[0]?.metadata["seed"]),
      }));
      const after = await gather(
        model,
        (one, scenario) => task.rollout(one, scenario, how),
        scenarios,
        {
          groupSize: 1,
          mode: "eval",
          concurrency: 64,
        },
      );
      const verdict = compare(before, after, { metric: "score" });
      console.log(
        `supervised, ${steps} optimizer steps: ${verdict.before.toFixed(0)} → ${verdict.after.toFixed(0)}`,
      );
      if (best && best.verdict.after >= verdict.after) continue;
      best = {
        ...{
          seed: run.seed,
          folder: adapter,
          verdict,
          references: run.references,
        },
        table: evaluationTable({ base: before, supervised: after }, { metric: "score" }),
        ...{ seconds: (performance.now() - began) / 1000, cpu: {}, turns: null, stages: {} },
      };
    } finally {
      await server.close();
    }
  }
  if (!best) throw new Error("nothing was trained");
  return best;
}

async function imitate(folder: string, adapter: string, steps: number): Promise<void> {
  await rm(adapter, { recursive: true, force: true });
  const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [at("../scripts/python.mjs")]);
  const python = stdout.trim().split("\n").at(-1) ?? "";
  const child = spawn(
    python,
    [
      at("supervised.py"),
      "--base",
      base,
      "--run",
      folder,
      "--out",
      adapter,
      "--steps",
      String(steps),
    ],
    { stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, HF_HUB_OFFLINE: "1" } },
  );
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", resolve);
  });
  if (status !== 0) throw new Error(`supervised.py ended with ${status}`);
}
