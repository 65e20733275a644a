import {
  HoneError,
  policyName,
  refuseUnknownOptions,
  requireModelRef,
  requireNumber,
} from "@hone/core";
import type { ChatMessage, Trajectory, TrajectoryGroup } from "@hone/core";
import { Hone, type Policy } from "@hone/client";
import type { ScoreHow } from "@hone/client/run";
import pLimit from "p-limit";
import { z } from "zod";
import type { JudgeFunction } from "../doctor/judge.ts";
import { completionText } from "@hone/ruler/rewards";
import type { JudgeMode } from "./judge-case.ts";
import { strictVerdicts } from "./judge-verdict.ts";
import { judgementPrompt, type JudgementPrompt } from "./prompt.ts";

export interface TrainedJudgeOptions {
  /** The judge's name on the server, or `name@N`. */
  model: string;
  /** What it was trained for. */
  mode: JudgeMode;
  /** What it was asked when it was trained. @default trainJudge's own */
  prompt?: JudgementPrompt | undefined;
  /** @default 0 */
  temperature?: number | undefined;
  /** Tokens that a judgement may have. @default 1024 */
  answerTokens?: number | undefined;
  /** Requests at the same time. @default 8 */
  concurrency?: number | undefined;
  /** @default new Hone() */
  hone?: Hone | undefined;
}

/** A trained judge, asked in the format that it was trained in. */
export interface TrainedJudge {
  /** For the judge doctor and for code of one's own: scores from 0 to 1; null where it could not be read. */
  judge: JudgeFunction;
  /**
   * A task's `score`: rewards for each group. A group with an output that has no score has none at all
   * (`judge_failed`), and trains nothing. Evaluations are left as they are.
   */
  score: (groups: TrajectoryGroup[], how: ScoreHow) => Promise<TrajectoryGroup[]>;
}

/**
 * A judge that `trainJudge` made (grpo or sft), as a judge of groups. A pointwise one scores each output: its mark
 * over 4. A pairwise one compares every two outputs in both orders: an output's score is the share of its comparisons
 * that it won, ties half; of k outputs that is k(k − 1) requests.
 */
export function trainedJudge(options: TrainedJudgeOptions): TrainedJudge {
  refuseUnknownOptions("trainedJudge()", options, [
    ...["model", "mode", "prompt", "temperature", "answerTokens", "concurrency", "hone"],
  ]);
  const { model, mode, prompt = judgementPrompt } = options;
  if (mode !== "pointwise" && mode !== "pairwise") {
    throw new HoneError(`mode is "pointwise" or "pairwise", not ${JSON.stringify(mode)}.`, {
      ...{ code: "invalid_config", param: "mode" },
    });
  }
  const temperature = requireNumber("temperature", options.temperature ?? 0, { least: 0 });
  const max_tokens = requireNumber("answerTokens", options.answerTokens ?? 1024, {
    ...{ least: 1, whole: true },
  });
  const concurrency = requireNumber("concurrency", options.concurrency ?? 8, {
    ...{ least: 1, whole: true },
  });
  const limit = pLimit(concurrency);
  let policy: Promise<Policy> | undefined;

  const ask = async (input: readonly ChatMessage[], answers: string[], signal: AbortSignal) =>
    await limit(async () => {
      signal.throwIfAborted();
      const looked = (policy ??= trainedPolicy(options.hone ?? new Hone(), model));
      const { transport, name, step } = await looked.catch((error: unknown) => {
        // A server that was away for a moment is asked again by the next judgement.
        if (policy === looked) policy = undefined;
        throw error;
      });
      const { choices } = await transport.json("POST", "/v1/chat/completions", answerSchema, {
        body: {
          model: step === null ? name : policyName(name, step),
          messages: prompt({ mode, input, answers }),
          ...{ temperature, max_tokens },
        },
        signal,
      });
      return choices[0]?.message.content ?? "";
    });

  const judge: JudgeFunction = async (trajectories, { signal }) =>
    mode === "pointwise"
      ? await marks(trajectories, async (input, answers) => await ask(input, answers, signal))
      : await wins(trajectories, async (input, answers) => await ask(input, answers, signal));

  return {
    judge,
    async score(groups, { mode: played, signal }) {
      if (played === "eval") return groups;
      return await Promise.all(groups.map(async (group) => await scored(group, judge, signal)));
    },
  };
}

const answerSchema = z.object({
  choices: z.array(z.object({ message: z.object({ content: z.string().nullish() }) })).min(1),
});

/** A model that was never trained is no judge; a name with a slip of the pen would be one of those. */
export async function trainedPolicy(hone: Hone, given: string): Promise<Policy> {
  const ref = requireModelRef(given);
  const model = await hone.model({ name: ref.model, create: false });
  const { learnt } = await model.info();
  if (learnt > 0) return ref.step === null ? model : model.at(ref.step);
  throw new HoneError(
    `The model "${ref.model}" has never been trained, so that it is no trained judge. Train it with trainJudge(), or mend the name.`,
    { code: "invalid_config", param: "model" },
  );
}

type Ask = (input: readonly ChatMessage[], answers: string[]) => Promise<string>;

async function marks(trajectories: readonly Trajectory[], ask: Ask): Promise<(number | null)[]> {
  return await Promise.all(
    trajectories.map(async (trajectory) => {
      const said = strictVerdicts.pointwise(
        await ask(inputOf(trajectory), [completionText(trajectory)]),
      );
      return said === null ? null : said / 4;
    }),
  );
}

async function wins(trajectories: readonly Trajectory[], ask: Ask): Promise<(number | null)[]> {
  const points = trajectories.map(() => ({ won: 0, compared: 0 }));
  const places = [...trajectories.keys()];
  await Promise.all(
    places.flatMap((a) =>
      places
        .filter((b) => b !== a)
        .map(async (b) => {
          const [first, second] = [trajectories[a]!, trajectories[b]!];
          requireSameInput(first, second);
          const said = strictVerdicts.pairwise(
            await ask(inputOf(first), [completionText(first), completionText(second)]),
          );
          if (said === null) return;
          const won = said === "tie" ? 0.5 : Number(said === "A");
          points[a]!.won += won;
          points[b]!.won += 1 - won;
          points[a]!.compared += 1;
          points[b]!.compared += 1;
        }),
    ),
  );
  return points.map(({ won, compared }) => (compared === 0 ? null : won / compared));
}

/** What the output is an answer to. */
export function inputOf({ messages }: Trajectory): readonly ChatMessage[] {
  const last = messages.findLastIndex(({ role }) => role === "assistant");
  return messages.slice(0, last < 0 ? messages.length : last);
}

export function sameInput(one: Trajectory, other: Trajectory): boolean {
  return JSON.stringify(inputOf(one)) === JSON.stringify(inputOf(other));
}

/** A pairwise judge is shown one conversation and two answers to it. */
function requireSameInput(one: Trajectory, other: Trajectory): void {
  if (sameInput(one, other)) return;
  throw new HoneError(
    "The outputs of a group are last answers of different conversations (rollouts of several turns part after the first), and a pairwise judge compares two answers to the same one. Take a pointwise judge, or RULER, which is shown whole trajectories.",
    { code: "invalid_config", param: "mode" },
  );
}

async function scored(
  group: TrajectoryGroup,
  judge: JudgeFunction,
  signal: AbortSignal,
): Promise<TrajectoryGroup> {
  const { scenario, trajectories } = group;
  let scores: readonly (number | null)[];
  let why: string;
  try {
    scores = await judge(trajectories, { scenario, signal });
    why = "a judgement could not be read";
  } catch (error) {
    signal.throwIfAborted();
    // What every group would fail at is the run's to know.
    if (HoneError.isInstance(error) && endsIt.has(error.code)) throw error;
    scores = trajectories.map(() => null);
    why = error instanceof Error ? error.message : String(error);
  }
  const failed = scores.includes(null);
  return {
    ...group,
    metadata: { ...group.metadata, ...(failed && { failed: "judge_failed" }) },
    logs: failed ? [...group.logs, `The trained judge gave no scores: ${why}.`] : group.logs,
    trajectories: trajectories.map((trajectory, at) => ({
      ...trajectory,
      reward: failed ? null : (scores[at] as number),
      metrics: {
        ...trajectory.metrics,
        ...(scores[at] !== null && { judge_score: scores[at] as number }),
      },
    })),
  };
}

const endsIt: ReadonlySet<string> = new Set([
  ...["invalid_config", "invalid_api_key", "not_found", "model_not_found", "policy_not_found"],
]);
