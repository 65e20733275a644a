// A task for a policy that judges itself: which word belongs to a name. The base (make_base.py) says one of three
// words, all equally likely, and as a judge says yes more often to the right one than to the others.
import { gather, type Policy, type TrajectoryGroup } from "@hone/client";
import { defineTask, type ScoreHow } from "@hone/client/run";
import { coinOf, selfJudge, type ToJudge } from "@hone/recipes";
import OpenAI from "openai";

const goldFraction = 0.2;

export const arms = ["gold", "self", "fifth", "control"] as const;
/** Gold for all; the self-judge; the gold fifth alone; the self-judge with shuffled rewards. */
export type Arm = (typeof arms)[number];

/** A name's three words, the right one first, as make_base.py has drawn them. */
export type Words = Readonly<Record<string, readonly string[]>>;

/** As make_base.py words them. The first is what training asks, the others are held out. */
const wordings = ["What is the word of %?", "Say the word of %.", "The word of %, please."];
const shownWords = 3;
const none = "-";

const askedOf = (wording: string, name: string) => wording.replace("%", name);
const nameOf = (scenario: unknown): string => /of (\w+)/.exec(String(scenario))?.[1] ?? "";
const saidBy = ({ messages }: ToJudge["candidates"][number]): string =>
  messages.flatMap(({ content }) => (typeof content === "string" ? content : [])).at(-1) ?? "";

/** A judge reads a name's number and three words; "-" stands where fewer were said. */
const judgingPrompt = (words: Words, name: string, shown: readonly string[]) => {
  const filled = [...shown, ...Array.from({ length: shownWords }, () => none)];
  const item = Object.keys(words).indexOf(name);
  const content = `Judge item ${item}: ${filled.slice(0, shownWords).join(" ")}`;
  return [{ role: "user" as const, content }];
};

/** "yes no no": 1 for yes, 0 for no, in the order of the words; another text is no judgement. */
function verdictsOf(text: string): number[] | null {
  const verdicts = text.split(" ");
  const valid =
    verdicts.length === shownWords && verdicts.every((one) => one === "yes" || one === "no");
  return valid ? verdicts.map((one) => (one === "yes" ? 1 : 0)) : null;
}

function judgedByPolicy(coins: number, words: Words) {
  const known = new Set(Object.values(words).flat());
  // What is no word, or a fourth one, is not shown and worth 0.
  const shown = ({ candidates }: ToJudge) =>
    [...new Set(candidates.map(saidBy))].filter((word) => known.has(word)).slice(0, shownWords);
  return selfJudge({
    ...{ goldFraction, seed: coins, judgementsWithoutGold: 4, answerTokens: shownWords + 1 },
    prompt: (group) => judgingPrompt(words, nameOf(group.scenario), shown(group)),
    read(text, group) {
      const verdicts = verdictsOf(text);
      const places = new Map(shown(group).map((word, at) => [word, at]));
      const worth = (word: string) => verdicts?.[places.get(word) ?? shownWords] ?? 0;
      return verdicts && group.candidates.map((one) => worth(saidBy(one)));
    },
  });
}

/** Rewards for the scenarios that have gold, and none for the others. */
function fifthAlone(coins: number) {
  return (groups: TrajectoryGroup[], { mode }: ScoreHow): TrajectoryGroup[] =>
    groups.map((group) => {
      if (mode === "eval" || coinOf(coins, group.scenario) < goldFraction) return group;
      const trajectories = group.trajectories.map((one) => ({ ...one, reward: null }));
      return { ...group, trajectories };
    });
}

const trained = (words: Words) =>
  Object.keys(words).map((name) => askedOf(wordings[0] ?? "", name));

/** The coins of a seed: the first seed from 1000 times it on that gives exactly a fifth of the names gold. */
function coinSeed(seed: number, words: Words): number {
  const scenarios = trained(words);
  for (let tried = 1000 * seed; ; tried += 1) {
    const golden = scenarios.filter((one) => coinOf(tried, one) < goldFraction);
    if (golden.length === Math.round(goldFraction * scenarios.length)) return tried;
  }
}

/** Whether training on that name has gold. */
export function hasGold(seed: number, name: string, words: Words): boolean {
  return coinOf(coinSeed(seed, words), askedOf(wordings[0] ?? "", name)) < goldFraction;
}

type Connection = ReturnType<Parameters<Parameters<typeof gather>[1]>[0]["connection"]>;

async function answer(
  connection: Connection,
  messages: { role: "user"; content: string }[],
  { tokens, temperature = 1 }: { tokens: number; temperature?: number },
): Promise<string> {
  const completion = await new OpenAI(connection).chat.completions.create({
    ...{ model: connection.model, max_tokens: tokens, temperature, messages },
  });
  return completion.choices[0]?.message.content ?? "";
}

export interface Training {
  steps: number;
  learningRate: number;
}

export function taskOf(arm: Arm, seed: number, words: Words, training: Training) {
  const coins = coinSeed(seed, words);
  return defineTask({
    train: trained(words),
    // The experiment has an evaluation of its own, with more answers.
    heldOut: Object.keys(words).map((name) => askedOf(wordings[1] ?? "", name)),
    ...(arm === "fifth" && { score: fifthAlone(coins) }),
    ...((arm === "self" || arm === "control") && { score: judgedByPolicy(coins, words) }),
    async rollout(model, content: string, { temperature }) {
      const asked = [{ role: "user" as const, content }];
      const said = await answer(model.connection(), asked, { tokens: 2, temperature });
      return said === words[nameOf(content)]?.[0] ? 1 : 0;
    },
    options: {
      ...{ ...training, groupsPerStep: 10, groupSize: 8, concurrency: 64 },
      verdict: "sampled",
      train: { warmupSteps: 4, normalizerTokens: 2, maxTokensPerMicroBatch: 4096 },
    },
  });
}

/** Share of right answers in the wordings that training did not ask in: a group for each name. */
export async function answers(policy: Policy, words: Words): Promise<TrajectoryGroup[]> {
  const scenarios = Object.keys(words).flatMap((name) =>
    wordings.slice(1).map((wording) => ({ name, content: askedOf(wording, name) })),
  );
  const groups = await gather(
    policy,
    async (model, { name, content }: (typeof scenarios)[number]) => {
      const asked = [{ role: "user" as const, content }];
      const said = await answer(model.connection(), asked, { tokens: 2 });
      return said === words[name]?.[0] ? 1 : 0;
    },
    scenarios,
    { mode: "eval", groupSize: 8, concurrency: 64 },
  );
  return byName(groups);
}

/** Of a name's right and each wrong word: 1 for yes to the right one alone, half for a tie. A group for each name. */
export async function judgements(policy: Policy, words: Words): Promise<TrajectoryGroup[]> {
  const scenarios = Object.keys(words).flatMap((name) => [0, 1, 2].map((turn) => ({ name, turn })));
  const groups = await gather(
    policy,
    async (model, { name, turn }: (typeof scenarios)[number]) => {
      const own = words[name] ?? [];
      const shown = [...own.slice(turn), ...own.slice(0, turn)];
      const prompt = judgingPrompt(words, name, shown);
      const said = await answer(model.connection(), prompt, { tokens: shownWords + 1 });
      const verdicts = verdictsOf(said);
      if (!verdicts) return 0;
      const yes = (word: string | undefined) => verdicts[shown.indexOf(word ?? "")] ?? 0;
      return 0.5 + (yes(own[0]) - (yes(own[1]) + yes(own[2])) / 2) / 2;
    },
    scenarios,
    { mode: "eval", groupSize: 8, concurrency: 64 },
  );
  return byName(groups);
}

/** What is asked of one name in several ways is one scenario: intervals are over names. */
function byName(groups: readonly TrajectoryGroup[]): TrajectoryGroup[] {
  const names = new Set(groups.map(({ scenario }) => (scenario as { name: string }).name));
  return [...names].map((name) => {
    const of = groups.filter(({ scenario }) => (scenario as { name: string }).name === name);
    return {
      ...of[0]!,
      scenario: name,
      trajectories: of.flatMap(({ trajectories }) => trajectories),
    };
  });
}
