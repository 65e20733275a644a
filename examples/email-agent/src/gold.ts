import type { Question } from "./corpus.ts";

/** What an episode did, told without its words. */
export interface Episode {
  answer: string | null;
  sources: readonly string[];
  /** Ids that searches have shown, and that were read. */
  found: ReadonlySet<string>;
  read: ReadonlySet<string>;
  /** Reads of mails that are not there. */
  invalidReads: number;
  turns: number;
  mostTurns: number;
  /** What ended it before an answer. */
  failure: "unparseable" | "bad_tool" | "bad_arguments" | null;
}

const failures = { unparseable: -2, bad_tool: -1.9, bad_arguments: -1.8 } as const;

/** ART-E's rule: what is right is worth most, a guess costs, and partial credits show the way. */
export function goldReward(question: Question, episode: Episode): number {
  const { found, read, sources, turns, mostTurns } = episode;
  const partial =
    0.1 *
    [
      found.has(question.source),
      read.has(question.source),
      episode.invalidReads === 0,
      sources.includes(question.source),
    ].filter(Boolean).length;
  if (episode.failure !== null) return failures[episode.failure] + partial;
  if (episode.answer === null || doesNotKnow(episode.answer)) return partial;
  if (!isRight(question, episode.answer)) return -1 + partial;
  return (
    1 +
    (sources.includes(question.source) ? 0.3 : 0) +
    (sources.length > 0 ? 0.1 / sources.length : 0) +
    0.1 * (1 - turns / mostTurns)
  );
}

export function episodeMetrics(question: Question, episode: Episode): Record<string, number> {
  const { answer, sources, turns, failure } = episode;
  const knows = answer !== null && !doesNotKnow(answer);
  return {
    correct: Number(knows && isRight(question, answer)),
    sourcesRight: Number(sources.includes(question.source)),
    dontKnow: Number(answer !== null && !knows),
    badCalls: Number(failure !== null) + episode.invalidReads,
    turns,
  };
}

function isRight({ answer }: Question, given: string): boolean {
  return given.trim().toLowerCase() === answer.toLowerCase();
}

function doesNotKnow(answer: string): boolean {
  return /^i don.?t know\b/i.test(answer.trim());
}
