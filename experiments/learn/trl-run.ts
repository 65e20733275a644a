// TRL's side: trl_side.py in a process of its own.
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startProgram } from "./child.ts";
import type { Machine } from "./hone-server.ts";
import { judgedSteps, writeJson, type RunRecord, type StepTime } from "./run-record.ts";
import type { LearnTask } from "./task.ts";

export interface TrlChoices {
  /** Products of the adapter in bfloat16 too, by torch's autocast. */
  autocast: boolean;
  /** transformers' `generate_batch` in place of `generate`. */
  continuousBatching: boolean;
}

type Told =
  | { event: "ready"; promptIds: number[] }
  | ({ event: "step" } & StepTime)
  | { event: "done" };

const side = fileURLToPath(new URL("trl_side.py", import.meta.url));

export async function runTrl(
  task: LearnTask,
  {
    seed,
    machine,
    folder,
    choices,
  }: { seed: number; machine: Machine; folder: string; choices: TrlChoices },
  onStep: (step: StepTime) => void,
): Promise<RunRecord> {
  await mkdir(folder, { recursive: true });
  const { settings } = task;
  const job = join(folder, "job.json");
  await writeJson(job, {
    base: task.base,
    dtype: task.dtype,
    settings,
    seed,
    threads: machine.threads,
    out: folder,
    judged: judgedSteps(settings),
    ...choices,
    scenarios: task.train(seed).map((scenario) => ({
      messages: task.messages(scenario),
      key: task.key(scenario),
    })),
  });
  const started = performance.now();
  const log = join(folder, "trl.log");
  const program = startProgram(machine.python, [side, "--job", job], {
    env: {
      OMP_NUM_THREADS: String(machine.threads),
      OMP_WAIT_POLICY: "passive",
      TOKENIZERS_PARALLELISM: "false",
      HF_HUB_OFFLINE: "1",
      // Large tensors come and go with each layer: glibc is to keep their memory, not to hand it back each time.
      MALLOC_MMAP_THRESHOLD_: "4294967296",
      MALLOC_TRIM_THRESHOLD_: "8589934592",
    },
    log,
  });
  const record: RunRecord = {
    contender: "trl",
    seed,
    startSeconds: Number.NaN,
    promptIds: [],
    steps: [],
  };
  let done = false;
  let end: string;
  try {
    for await (const line of program.lines) {
      const told = JSON.parse(line) as Told;
      if (told.event === "ready") {
        record.startSeconds = (performance.now() - started) / 1000;
        record.promptIds = told.promptIds;
      } else if (told.event === "step") {
        const { event: _, ...step } = told;
        record.steps.push(step);
        onStep(step);
      } else {
        done = true;
      }
    }
  } finally {
    end = await program.stop();
    await rm(job, { force: true });
  }
  if (!done) throw new Error(`TRL's run ended early (${end}); its log is ${log}.`);
  return record;
}
