import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readGroups, type TrajectoryGroup } from "@hone/client";
import { defineTask, trainRun } from "@hone/client/run";
import { dealtOrders, digestOf, preferenceIn, shownCases, type JudgeCase } from "./judge-case.ts";
import { gradedCase, judgementsOf } from "./judge-task.ts";
import { openJudgeVerdicts, strictVerdicts } from "./judge-verdict.ts";
import type { Given, LearntJudge } from "./options.ts";
import { demonstration, judgementPrompt, type JudgementPrompt } from "./prompt.ts";

/** A judge that writes its verdicts: a task like any other, whose scenarios are the cases. */
export async function learnJudgements(
  cases: readonly JudgeCase[],
  heldOut: readonly JudgeCase[],
  given: Given,
): Promise<LearntJudge> {
  const { mode, method, name, seed, hone, out, signal, onEvent, run = {} } = given;
  const { prompt = judgementPrompt, answerTokens = 1024, parity = false } = given;
  const { learningRate = 1e-4, epochs = 1, batchSize = 16 } = given;
  const train = dealtOrders(cases, seed);
  const read = parity ? openJudgeVerdicts : strictVerdicts;
  // Whatever its steps stand for: a run that goes on with another would be half of one and half of the other.
  const settings = {
    ...{ judge: mode, method, parity, data: digestOf(train) },
    prompt: promptDigest(prompt, [...train, ...heldOut]),
    // Of grpo the run's own options say it.
    batchSize: method === "sft" ? batchSize : 0,
  };
  const task = defineTask({
    ...{ train, heldOut, metric: "judge/accuracy", settings },
    rollout: async (model, one: JudgeCase, how) =>
      gradedCase(one, await judgementsOf(model, one, { ...how, prompt, read })),
    ...(method === "sft" && {
      warmUp: async (model) => {
        await model.sft(
          train.flatMap((one) => demonstrations(one, prompt)),
          {
            ...{ learningRate, epochs, batchSize, seed, signal },
            onProgress: (event) => {
              if (event.type !== "step") return;
              const { step, steps, loss, policy } = event;
              onEvent?.({ type: "learning", step, steps, loss, policy });
            },
          },
        );
        // The verdict's own evaluation follows: one is enough.
        return false;
      },
    }),
  });
  const summary = await trainRun(task, {
    ...run,
    ...(method === "sft" && { steps: 0 }),
    ...{ name, out, seed, hone, learningRate, answerTokens, signal, onEvent },
    ungated: given.ungated,
  });
  return {
    before: await evaluation(out, "base greedy"),
    after: await evaluation(out, "trained greedy"),
    ...{ policy: summary.policy, ties: 0 },
    notes: summary.steps > 0 && summary.trained === 0 ? [untrained] : [],
  };
}

const untrained =
  "Nothing was trained: in each group all judgements earned the same. Look at judge/parse_rate; where none can be read, begin with sft.";

/** A prompt is a function: it is known by what it makes of the cases. */
function promptDigest(prompt: JudgementPrompt, cases: readonly JudgeCase[]): string {
  return digestOf(cases.flatMap((one) => shownCases(one).map(({ shown }) => prompt(shown))));
}

/** The case as it is shown, and the right answer. */
function demonstrations(one: JudgeCase, prompt: JudgementPrompt) {
  return shownCases(one).map(({ shown, order }) => {
    const verdict = one.mode === "pointwise" ? one.label : preferenceIn(one, order);
    const content = demonstration(one.mode, verdict);
    return { messages: [...prompt(shown), { role: "assistant" as const, content }] };
  });
}

/** The newest evaluation of that label that the run's folder keeps. */
async function evaluation(folder: string, label: string): Promise<TrajectoryGroup[]> {
  const lines = (await readFile(join(folder, "metrics.jsonl"), "utf8")).split("\n");
  const file = lines
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { type: string; label?: string; file?: string })
    .findLast((one) => one.type === "evaluation" && one.label === label)?.file;
  return await readGroups(join(folder, "trajectories", String(file)));
}
