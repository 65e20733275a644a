// A task for a policy that judges itself: which colour a thing has. The base (make_base.py) answers at random, and
// knows half of the time when it is shown colours to choose from.
import { defineTask, type ScoreHow } from "@hone/client/run";
import { gather, type Model, type TrajectoryGroup } from "@hone/client";
import { coinOf, selfJudge, type ToJudge } from "@hone/recipes";
import OpenAI from "openai";

const goldFraction = 0.2;

export const arms = ["gold", "self", "fifth", "control"] as const;
/** Gold for all; the self-judge; the gold fifth alone; the self-judge with shuffled rewards. */
export type Arm = (typeof arms)[number];

/** As make_base.py words them. The first is what training asks, the others are held out. */
const wordings = [
  "Which colour is the %?",
  "Say the colour of the %.",
  "The % has one colour. Name it.",
  "What is the colour of the %?",
];

export type Colours = Readonly<Record<string, string>>;
type Scenario = string;

const wordOf = ({ messages }: ToJudge["candidates"][number]): string =>
  messages.flatMap(({ content }) => (typeof content === "string" ? content : [])).at(-1) ?? "";

const thingOf = (scenario: unknown): string =>
  /[Tt]he (\w+)( has|\.|\?)/.exec(String(scenario))?.[1] ?? "";

/** A judge reads the thing's number, its place in the list: that is what the base knows colours by. */
const judgingPrompt = (colours: Colours, thing: string, shown: readonly string[]) => [
  {
    role: "user" as const,
    content: `Is item ${Object.keys(colours).indexOf(thing)} of this colour? ${shown.join(", ")}`,
  },
];

/** "red no blue yes": 1 for yes, 0 for no. What was no colour is worth 0; another list is no judgement. */
function scoresOf(
  text: string,
  shown: readonly string[],
  { candidates }: ToJudge,
): number[] | null {
  const words = text.split(" ");
  const worth = new Map(shown.map((colour, at) => [colour, words[2 * at + 1]]));
  const valid =
    words.length === 2 * shown.length &&
    shown.every(
      (colour, at) => colour === words[2 * at] && /^(yes|no)$/.test(words[2 * at + 1] ?? ""),
    );
  return valid ? candidates.map((one) => (worth.get(wordOf(one)) === "yes" ? 1 : 0)) : null;
}

/** Who gives the rewards of an arm; undefined: the rollouts' own, which are gold. */
function scoreOf(arm: Arm, seed: number, colours: Colours) {
  if (arm === "gold") return undefined;
  const coins = coinSeed(seed, colours);
  if (arm === "fifth") return fifthAlone(coins);
  const known = new Set(Object.values(colours));
  const said = (group: ToJudge) =>
    [...new Set(group.candidates.map(wordOf))].filter((word) => known.has(word));
  return selfJudge({
    ...{ goldFraction, seed: coins, judgementsWithoutGold: 4, answerTokens: 20 },
    prompt: (group) => judgingPrompt(colours, thingOf(group.scenario), said(group)),
    read: (text, group) => scoresOf(text, said(group), group),
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

const askedOf = (colours: Colours, wording: string): Scenario[] =>
  Object.keys(colours).map((thing) => wording.replace("%", thing));
const trainingOf = (colours: Colours): Scenario[] => askedOf(colours, wordings[0] ?? "");

/** The coins of a seed: the first seed from 1000 times it on that gives exactly a fifth of the things gold. */
function coinSeed(seed: number, colours: Colours): number {
  const scenarios = trainingOf(colours);
  for (let tried = 1000 * seed; ; tried += 1) {
    const golden = scenarios.filter((one) => coinOf(tried, one) < goldFraction);
    if (golden.length === Math.round(goldFraction * scenarios.length)) return tried;
  }
}

/** Whether training on the thing that a scenario asks for has gold. */
export function hasGold(seed: number, scenario: unknown, colours: Colours): boolean {
  const thing =
    typeof scenario === "string" ? thingOf(scenario) : (scenario as { thing: string }).thing;
  return coinOf(coinSeed(seed, colours), wordings[0]?.replace("%", thing)) < goldFraction;
}

async function answer(
  connection: { baseURL: string; apiKey: string; model: string; fetch: typeof fetch },
  messages: { role: "user"; content: string }[],
  temperature: number,
  most = 2,
): Promise<string> {
  const completion = await new OpenAI(connection).chat.completions.create({
    ...{ model: connection.model, max_tokens: most, temperature, messages },
  });
  return completion.choices[0]?.message.content ?? "";
}

export function taskOf(
  arm: Arm,
  seed: number,
  colours: Colours,
  steps: number,
  learningRate: number,
) {
  const score = scoreOf(arm, seed, colours);
  return defineTask({
    train: trainingOf(colours),
    heldOut: wordings.slice(1).flatMap((wording) => askedOf(colours, wording)),
    ...(score && { score }),
    async rollout(model, content: Scenario, { temperature }) {
      const said = await answer(model.connection(), [{ role: "user", content }], temperature);
      return said === colours[thingOf(content)] ? 1 : 0;
    },
    options: {
      ...{ steps, groupsPerStep: 10, groupSize: 8, concurrency: 64, learningRate },
      verdict: "sampled",
      train: { warmupSteps: 4, normalizerTokens: 2, maxTokensPerMicroBatch: 4096 },
    },
  });
}

/** How well the policy judges: of a right and a wrong colour, 1 if it says yes to the right one alone, half for a tie. */
export async function judgeEvaluation(
  model: Model,
  name: string,
  colours: Colours,
  samples: number,
) {
  const all = [...new Set(Object.values(colours))].toSorted();
  const at = name === "base" ? model.at(0) : model;
  return await gather(
    at,
    async (policy, { thing, wrong, first }: { thing: string; wrong: string; first: boolean }) => {
      const right = colours[thing] ?? "";
      const shown = first ? [right, wrong] : [wrong, right];
      const prompt = judgingPrompt(colours, thing, shown);
      const words = (await answer(policy.connection(), prompt, 1, 20)).split(" ");
      const yes = (colour: string) => (words[2 * shown.indexOf(colour) + 1] === "yes" ? 1 : 0);
      return 0.5 + (yes(right) - yes(wrong)) / 2;
    },
    Object.entries(colours).flatMap(([thing, right], n) => {
      const others = all.filter((one) => one !== right);
      return [0, 1, 2].map((k) => ({ thing, wrong: others[(n + 2 * k) % 7]!, first: k % 2 === 0 }));
    }),
    { mode: "eval", groupSize: samples, concurrency: 64 },
  );
}
