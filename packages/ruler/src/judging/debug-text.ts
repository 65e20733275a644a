import { printableBlock, printableLine } from "@hone/core";
import type { JudgedMembers } from "./judgement.ts";

/** What the judge decided and why, best first, for people. */
export function debugText(group: { id: string }, { scores, judgement }: JudgedMembers): string {
  const { status, judge, calls, promptTokens, cachedTokens, completionTokens, costUsd } = judgement;
  const cost = costUsd === null ? "cost unknown" : `$${costUsd.toFixed(4)}`;
  const head = `RULER ${printableLine(group.id)}: ${status} by ${printableLine(judge)}, ${calls} calls, ${promptTokens} prompt tokens (${cachedTokens} cached), ${completionTokens} completion tokens, ${cost}`;
  const reasoning = judgement.trajectories.flatMap(({ messages }) => {
    const last = messages.findLast(({ role }) => role === "assistant");
    return last?.role === "assistant" && last.reasoning_content
      ? [`  thoughts: ${indent(last.reasoning_content)}`]
      : [];
  });
  const lines = [...scores.entries()]
    .sort(([, a], [, b]) => (b?.score ?? -1) - (a?.score ?? -1))
    .map(([index, judged]) =>
      judged
        ? `  ${judged.score.toFixed(3)}  #${index}  ${indent(judged.explanation)}`
        : `  none   #${index}`,
    );
  const rest = [
    ...judgement.cuts.map((cut) => `  left out: ${printableLine(cut)}`),
    ...(judgement.error ? [`  error: ${printableLine(judgement.error.message)}`] : []),
  ];
  return [head, ...reasoning, ...lines, ...rest].join("\n");
}

function indent(text: string): string {
  return printableBlock(text.trim(), "      ");
}
