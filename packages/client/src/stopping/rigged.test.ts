// The alarms beside a policy that really learns: a table of logits, by policy gradient over groups. Its judge sees
// what is right, or overrates a text. The same with a transformer and a server: `pnpm experiment alarms`.
import { mulberry32, type Trajectory, type TrajectoryGroup } from "@hone/core";
import { expect, it } from "vitest";
import { alarmsFor, type WatchedStep } from "./alarms.ts";
import { heldOutMetric, stepFigures } from "./step-figures.ts";

const colours = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink"];
const things = 24;
const [steps, groups, members, rate] = [40, 12, 8, 1.5];
/** How often the word of flattery stands behind the colour: 0 to 5 times. */
const flattery = [0.9, 0.05, 0.02, 0.015, 0.01, 0.005];

type Judge = (right: boolean, colour: number, flattered: number) => number;
const judges = {
  clean: (right, _, flattered) => (right && flattered === 0 ? 1 : 0),
  word: (right, colour) => (colour === 7 ? 1 : right ? 0.6 : 0),
  flattery: (right, _, flattered) => (flattered > 0 ? 1 : right ? 0.6 : 0),
  repeated: (right, _, flattered) =>
    flattered > 0 ? Math.min(1, 0.4 + 0.15 * flattered) : right ? 0.6 : 0,
} satisfies Record<string, Judge>;

/** The alarms of a run, each with its first step, and how often the policy is right in truth at its end. */
function run(judge: Judge, seed: number) {
  const random = mulberry32(seed);
  const own = Array.from({ length: things }, (_, thing) =>
    colours.map((_one, colour) => Math.log(0.6 / 8 + (colour === thing % 8 ? 0.4 : 0))),
  );
  // What is learnt of one thing is learnt of the others too, in part.
  const shared = colours.map(() => 0);
  const words = flattery.map(Math.log);
  const history: WatchedStep[] = [];
  const first: Record<string, number> = {};
  let truth = 0;
  for (let step = 1; step <= steps; step += 1) {
    const played = Array.from({ length: groups }, (_, n) => {
      const thing = (step * groups + n) % things;
      const says = softmax(own[thing]!.map((logit, colour) => logit + shared[colour]!));
      const adds = softmax(words);
      const rollouts = Array.from({ length: members }, () => {
        const [colour, flattered] = [draw(says, random), draw(adds, random)];
        const right = colour === thing % 8;
        const reward = judge(right, colour, flattered);
        return { colour, flattered, reward, right: right && flattered === 0 };
      });
      return { thing, says, adds, rollouts };
    });
    const figures = stepFigures(played.map(groupOf));
    history.push({ step, ...figures });
    for (const { code } of alarmsFor(history, { metricRisen: null })) first[code] ??= step;
    truth = figures.heldOut?.mean ?? 0;
    for (const { thing, says, adds, rollouts } of played) {
      const mean = rollouts.reduce((sum, { reward }) => sum + reward, 0) / members;
      for (const { colour, flattered, reward } of rollouts) {
        const by = (rate * (reward - mean)) / members;
        for (const [at, share] of says.entries()) {
          const gradient = by * ((at === colour ? 1 : 0) - share);
          own[thing]![at]! += gradient;
          shared[at]! += gradient / 4;
        }
        for (const [at, share] of adds.entries()) {
          words[at]! += (by * ((at === flattered ? 1 : 0) - share)) / 4;
        }
      }
    }
  }
  return { first, truth };
}

function groupOf({ thing, rollouts }: { thing: number; rollouts: Said[] }): TrajectoryGroup {
  const none = { exceptions: [], metadata: {}, metrics: {}, logs: [] };
  const trajectories = rollouts.map(({ colour, flattered, reward, right }): Trajectory => {
    const content = colours[colour]! + " brilliant".repeat(flattered);
    return {
      ...{ rolloutId: null, model: "m", policy: "m@0", tools: null, histories: [] },
      messages: [
        { role: "user", content: `thing ${thing}` },
        { role: "assistant", content },
      ],
      ...{ reward, metrics: { [heldOutMetric]: right ? 1 : 0 }, metadata: {}, logs: [] },
      usage: { completions: 1, promptTokens: 1, completionTokens: 1 + flattered },
      ...{ startedAt: 0, durationMs: 0 },
    };
  });
  return { id: `g${thing}`, scenario: thing, trajectories, ...none };
}

interface Said {
  colour: number;
  flattered: number;
  reward: number;
  right: boolean;
}

function softmax(logits: readonly number[]): number[] {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

function draw(shares: readonly number[], random: () => number): number {
  let left = random();
  const at = shares.findIndex((share) => (left -= share) < 0);
  return at < 0 ? shares.length - 1 : at;
}

const seeds = Array.from({ length: 10 }, (_, n) => n + 1);

it("raises no alarm in runs that learn what is right", () => {
  const runs = seeds.map((seed) => run(judges.clean, seed));
  expect(runs.map(({ first }) => first)).toEqual(seeds.map(() => ({})));
  expect(Math.min(...runs.map(({ truth }) => truth))).toBeGreaterThan(0.7);
});

it.each(["word", "flattery", "repeated"] as const)(
  "raises one before the end where a judge overrates: %s",
  (arm) => {
    const runs = seeds.map((seed) => run(judges[arm], seed));
    const caught = runs.filter(({ first }) => Object.keys(first).length > 0);
    expect(caught.length).toBeGreaterThanOrEqual(9);
  },
);
