import { HoneError } from "@hone/core";
import type { RolloutModel } from "@hone/client";
import { askModel } from "../ask-model.ts";
import { mean } from "../doctor/statistics.ts";
import { preferenceIn, shownCases, type JudgeCase } from "./judge-case.ts";
import { pairwiseReward, pointwiseReward, type VerdictReader } from "./judge-verdict.ts";
import type { JudgementPrompt } from "./prompt.ts";
import type { Preference } from "./record.ts";

/** What a judgement said, by the order in which the answers were shown. */
export interface Judged {
  order: "given" | "swapped";
  /** Null where the answer could not be read. */
  said: number | Preference | null;
}

/** Asks for the judgements of one case: one, or one for each order of a pair. */
export async function judgementsOf(
  model: RolloutModel,
  one: JudgeCase,
  how: {
    prompt: JudgementPrompt;
    read: VerdictReader;
    temperature: number;
    answerTokens: number;
    seed?: number | null | undefined;
  },
): Promise<Judged[]> {
  const judged: Judged[] = [];
  for (const [at, { shown, order }] of shownCases(one).entries()) {
    const { temperature, answerTokens: max_tokens } = how;
    const seed = typeof how.seed === "number" && { seed: how.seed + at };
    const request = { messages: how.prompt(shown), temperature, max_tokens, ...seed };
    const text = contentOf(await askModel(model, request, "The judge gave no answer"));
    judged.push({ order, said: how.read[one.mode](text) });
  }
  return judged;
}

/** Thoughts that the server tells apart are no part of the text. */
function contentOf(body: string): string {
  let answer: { choices?: { message?: { content?: unknown } }[] };
  try {
    answer = JSON.parse(body) as typeof answer;
  } catch (cause) {
    throw new HoneError(`The judge's response is not JSON: ${body.slice(0, 100)}`, {
      ...{ code: "invalid_response", cause },
    });
  }
  const [choice] = answer.choices ?? [];
  if (!choice) {
    throw new HoneError("The judge's response has no choice.", { code: "invalid_response" });
  }
  return typeof choice.message?.content === "string" ? choice.message.content : "";
}

/** Reward and metrics of the judgements of one case. An answer that cannot be read is no right one. */
export function gradedCase(
  one: JudgeCase,
  judged: readonly Judged[],
): { reward: number; metrics: Record<string, number> } {
  const read = judged.filter(({ said }) => said !== null);
  const parsed = { "judge/parse_rate": read.length / judged.length };
  if (one.mode === "pointwise") {
    const said = judged[0]?.said as number | null;
    return {
      reward: pointwiseReward(said, one.label),
      metrics: {
        ...parsed,
        "judge/accuracy": Number(said === one.label),
        ...(said !== null && {
          "judge/mae": Math.abs(said - one.label),
          "judge/score": said,
        }),
      },
    };
  }
  const right = judged.map(({ order, said }) =>
    pairwiseReward(said as Preference | null, preferenceIn(one, order)),
  );
  const rightIn = (order: string) =>
    Object.fromEntries(
      judged.flatMap((each, at) =>
        each.order === order ? [[`judge/accuracy_${order}`, right[at] as number]] : [],
      ),
    );
  const accuracy = mean(right);
  return {
    reward: accuracy,
    metrics: {
      ...parsed,
      "judge/accuracy": accuracy,
      ...rightIn("given"),
      ...rightIn("swapped"),
      ...(read.length > 0 && {
        // Over both orders of a pair, a judge that looks at the answers alone has none.
        "judge/position_bias": mean(read.map(({ said }) => placeOf(said as Preference))),
      }),
    },
  };
}

function placeOf(said: Preference): number {
  return said === "tie" ? 0 : said === "A" ? 1 : -1;
}

/** What each metric says. */
export const metricsOf = {
  pointwise: ["judge/accuracy", "judge/mae", "judge/parse_rate", "judge/pair_accuracy"],
  pairwise: [
    ...["judge/accuracy", "judge/accuracy_given", "judge/accuracy_swapped"],
    ...["judge/position_bias", "judge/parse_rate"],
  ],
} as const;
