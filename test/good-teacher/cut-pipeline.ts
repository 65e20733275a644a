/**
 * The pipeline of reward models as teachers, with everything small. As a program it runs the pipeline of a folder, and
 * kills itself in the middle of a stage: `cut-pipeline.ts '{"url":…,"key":…,"folder":…,"kill":0}'`.
 */
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { Hone } from "@hone/client";
import { goodTeacher, smallSetSettings, type GoodTeacherEvent } from "@hone/recipes";

export interface Pipeline {
  url: string;
  key: string;
  /** Holds preferences.jsonl and truth.mjs. */
  folder: string;
  /** The folder in it that gets the stages' files. */
  out: string;
}

export async function runPipeline(
  { url, key, folder, out }: Pipeline,
  onEvent: (event: GoodTeacherEvent) => void = () => {},
) {
  const connection = { baseURL: url, apiKey: key };
  const { rows } = await goodTeacher({
    ...{ hone: new Hone(connection), names: { rewardModel: connection }, onEvent },
    ...{ out: join(folder, out), name: "teacher", scorer: join(folder, "truth.mjs") },
    ...{ preferences: join(folder, "preferences.jsonl"), shares: [0.5] },
    others: { "ground truth": { reward: "gold" } },
    signal: new AbortController().signal,
    settings: {
      ...smallSetSettings,
      ...{ testShare: 0.25, policyShare: 0.3, answerTokens: 4, pairs: undefined },
      // Few at a time, so that a batch is half played when it is cut off.
      concurrency: 3,
      sft: { epochs: 1, batchSize: 8, learningRate: 1e-3 },
      samples: { pairs: 4, measured: 4 },
      rewardModel: { epochs: 1, batchSize: 8, learningRate: 1e-3, centering: 0.01 },
      policy: {
        ...{ ...smallSetSettings.policy, steps: 2, groupsPerStep: 4, groupSize: 4 },
        ...{ objective: "grpo", testSamples: 2 },
        train: { warmupSteps: 0, maxTokensPerMicroBatch: 2048 },
      },
    },
  });
  return rows;
}

/** The run under way is in this part, and so many of its rollouts are done. */
function isAt(label: RegExp, done = 0) {
  let current = "";
  return (event: GoodTeacherEvent): boolean => {
    if (event.type !== "run") return false;
    if (event.event.type === "began") current = event.event.label;
    const so = event.event.type === "progressed" ? event.event.done : 0;
    return label.test(current) && so >= done;
  };
}

/** The middle of each stage that takes any time, in their order. */
export const middles: readonly [stage: string, isThere: (event: GoodTeacherEvent) => boolean][] = [
  ["labelled.jsonl", (event) => event.type === "scored" && event.done > 5],
  ["sft.json", (event) => event.type === "supervised" && event.event.type === "step"],
  ["outputs.jsonl", (event) => event.type === "scored" && event.done > 0],
  ["rm-50.json", (event) => event.type === "supervised" && event.event.type === "step"],
  ["evaluation-50.json", (event) => event.type === "scored" && event.done > 1],
  ["normalisation-50.json", (event) => event.type === "scored" && event.done > 1],
  ["policy-50.json", isAt(/^step 1\/2 playing/, 5)],
  // The step itself is under way then, and the server goes on with it.
  ["policy-50.json", isAt(/^step 2\/2 training/, 0.01)],
  ["policy-50.json", isAt(/^evaluating trained/, 3)],
  ["policy-ground-truth.json", isAt(/^step 2\/2 playing/, 6)],
];

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const given = JSON.parse(process.argv[2] ?? "") as Pipeline & { kill: number };
  const [cut, isThere] = middles[given.kill] ?? [];
  let stage = "";
  await runPipeline(given, (event) => {
    if (event.type === "stage") stage = event.file;
    if (stage === cut && isThere?.(event)) process.kill(process.pid, "SIGKILL");
  });
}
