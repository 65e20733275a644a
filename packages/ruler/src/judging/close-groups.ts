import { addCost, type JudgedMembers, type MemberScore, type Pass } from "./judgement.ts";
import type { Attempt } from "../prompt/attempts.ts";
import { mean } from "./seeded-order.ts";
import type { Settings } from "./settings.ts";
import { tournament } from "./tournament.ts";

/** Whether the scores of the attempts differ by less than the judge's noise lets them differ by chance. */
export function isClose(
  { scores, judgement }: JudgedMembers,
  attempts: readonly Attempt[],
  { closeGroups, judgeNoise }: Settings,
): boolean {
  if (closeGroups !== "tournament" || judgement.status !== "judged") return false;
  const noise = judgeNoise ?? judgement.passSpread;
  const passes = judgement.passes.length;
  if (noise === null || attempts.length < 2) return false;
  const values = scoresOf(scores, attempts);
  const centre = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  const spread = Math.sqrt(squares / (values.length - 1));
  // Of a mean over passes the noise is smaller.
  return spread < noise / Math.sqrt(passes);
}

/**
 * Orders a close group by matches of two. A match without valid scores, or with equal ones, goes to the attempt that
 * the listwise judging liked better, and else to the one shown first, which the seed has drawn.
 */
export async function byTournament(
  { scores, judgement }: JudgedMembers,
  attempts: readonly Attempt[],
  seed: number,
  judgePair: (pair: readonly [number, number]) => Promise<Pass>,
): Promise<JudgedMembers> {
  const listwise = scoresOf(scores, attempts);
  const played: Pass[] = [];
  const { scores: survived, matches } = await tournament(attempts.length, seed, async (a, b) => {
    const pass = await judgePair([a, b]);
    played.push(pass);
    const [first, second] = pass.scores ?? [];
    const difference = (first?.score ?? 0) - (second?.score ?? 0);
    if (difference !== 0) return difference > 0 ? a : b;
    return (listwise[a] ?? 0) >= (listwise[b] ?? 0) ? a : b;
  });
  const result: (MemberScore | null)[] = [...scores];
  for (const [at, { members }] of attempts.entries()) {
    for (const member of members) {
      const before = scores[member];
      if (before) result[member] = { ...before, score: survived[at] ?? 0 };
    }
  }
  const sum = (value: (pass: Pass) => number) =>
    played.reduce((total, pass) => total + value(pass), 0);
  return {
    scores: result,
    judgement: {
      ...judgement,
      tournament: { matches, failed: played.filter((pass) => pass.scores === null).length },
      trajectories: [
        ...judgement.trajectories,
        ...played.flatMap(({ trajectory }) =>
          trajectory?.messages.some(({ role }) => role === "assistant") ? [trajectory] : [],
        ),
      ],
      calls: judgement.calls + sum(({ calls }) => calls),
      cachedAnswers: judgement.cachedAnswers + sum(({ cached }) => (cached ? 1 : 0)),
      repairs: judgement.repairs + sum(({ repairs }) => repairs),
      promptTokens:
        judgement.promptTokens + sum(({ trajectory }) => trajectory?.usage.promptTokens ?? 0),
      cachedTokens:
        judgement.cachedTokens + sum(({ trajectory }) => trajectory?.metrics["cached_tokens"] ?? 0),
      completionTokens:
        judgement.completionTokens +
        sum(({ trajectory }) => trajectory?.usage.completionTokens ?? 0),
      costUsd: played.map(({ costUsd }) => costUsd).reduce(addCost, judgement.costUsd),
    },
  };
}

function scoresOf(scores: readonly (MemberScore | null)[], attempts: readonly Attempt[]): number[] {
  return attempts.map(({ members }) => scores[members[0] ?? 0]?.score ?? 0);
}
