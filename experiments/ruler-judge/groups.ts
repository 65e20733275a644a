import type { ChatMessage, TrajectoryGroup } from "@hone/core";
import { mulberry32 } from "@hone/core";
import { answer, kinds } from "../train-judge/data.ts";

/** Attempts of a group: as many as the base has read judgements of. */
const size = 3;

/** One task and three different answers to it, and how many of each one's words are of the kind. */
export interface Judged {
  messages: ChatMessage[][];
  worth: number[];
}

/** Draws tasks without end. Of each at least two answers differ in worth. */
export function* tasks(seed: number): Generator<Judged, never> {
  const random = mulberry32(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  for (;;) {
    const kind = Object.keys(kinds)[below(5)] as string;
    const worth = Array.from({ length: size }, () => below(5));
    const answers = worth.map((right) => answer(kind, right, random));
    if (new Set(worth).size === 1 || new Set(answers).size < size) continue;
    const asked: ChatMessage = { role: "user", content: `four ${kind}` };
    const messages = answers.map((content): ChatMessage[] => [
      asked,
      { role: "assistant", content },
    ]);
    yield { messages, worth };
  }
}

/** Groups as a rollout leaves them, without rewards, and what their members are worth. */
export function groupsOf(
  seed: number,
  count: number,
): { group: TrajectoryGroup; worth: number[] }[] {
  const drawn = tasks(seed);
  return Array.from({ length: count }, (_, at) => {
    const { messages, worth } = drawn.next().value;
    const trajectories = messages.map((of) => ({
      ...{ rolloutId: null, model: null, policy: null, tools: null, histories: [], messages: of },
      ...{ reward: null, metrics: {}, metadata: {}, logs: [], startedAt: 0, durationMs: 0 },
      usage: { completions: 1, promptTokens: 0, completionTokens: 0 },
    }));
    const id = `group-${at}`;
    const none = { exceptions: [], metadata: {}, metrics: {}, logs: [] };
    return { group: { id, scenario: { at, seed }, trajectories, ...none }, worth };
  });
}

/** The share of the pairs of different worth that the scores order alike, half for equal scores and for none. */
export function inOrder(scores: readonly (number | null)[], worth: readonly number[]): number {
  const pairs = worth.flatMap((of, a) =>
    worth.flatMap((other, b) =>
      of > other ? [[scores[a] ?? null, scores[b] ?? null] as const] : [],
    ),
  );
  const right = pairs.map(([better, worse]) =>
    better === null || worse === null || better === worse ? 0.5 : Number(better > worse),
  );
  return right.reduce((sum, one) => sum + one, 0) / right.length;
}
