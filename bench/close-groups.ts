// `pnpm bench close-groups [--groups 100]` — groups whose attempts are close, ordered by listwise judging in one or
// several passes and by `closeGroups: "tournament"`: rank correlation with the truth, and what it costs. The judge is a
// program whose noise is known: a normal error of its own for each attempt in each request.
import { parseArgs } from "node:util";
import { mulberry32, type TrajectoryGroup } from "@hone/core";
import { rulerScoreGroup, type ScoreGroupOptions } from "@hone/ruler";
import { score, ScriptedJudge } from "@hone/ruler/testing";
import { mean, rankCorrelation } from "../packages/recipes/src/doctor/statistics.ts";

const { values } = parseArgs({ options: { groups: { type: "string", default: "100" } } });
process.env["HONE_RULER_SECRET"] ??= "of-the-bench";
const [outputs, spread, noise] = [8, 0.05, 0.1];
const random = mulberry32(1);
const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
const worth = new Map<string, number>();
/** A trace of some length, so that a prompt costs what it mostly does: attempts, and not its frame. */
const trace = "The agent looked, found what it was asked for, and said so in words. ".repeat(20);
const groups = Array.from({ length: Number(values.groups) }, (_, at): TrajectoryGroup => {
  const trajectories = Array.from({ length: outputs }, (__, k) => {
    const text = `${trace} ${at}-${k}`;
    worth.set(text, 0.5 + spread * normal());
    return {
      ...{ rolloutId: null, model: null, policy: null, tools: null, histories: [], reward: null },
      messages: [
        { role: "user" as const, content: `Task ${at}` },
        { role: "assistant" as const, content: text },
      ],
      ...{ metrics: {}, metadata: {}, logs: [], startedAt: 0, durationMs: 0 },
      usage: { completions: 1, promptTokens: 0, completionTokens: 0 },
    };
  });
  const rest = { exceptions: [], metadata: {}, metrics: {}, logs: [] };
  return { id: `g${at}`, scenario: { at }, trajectories, ...rest };
});
const ways: [name: string, options: ScoreGroupOptions][] = [
  ["listwise, 1 pass", { passes: 1 }],
  ["listwise, 2 passes", { passes: 2 }],
  ["listwise, 4 passes", { passes: 4 }],
  ["listwise, 8 passes", { passes: 8 }],
  ["tournament if close", { closeGroups: "tournament", judgeNoise: noise }],
  ["tournament always", { closeGroups: "tournament", judgeNoise: 100 }],
];
/** Steps of .1 are what language models mostly give. */
const judges: [name: string, inPairs: number, step: number | null][] = [
  ["alike", noise, null],
  ["alike, in steps of .1", noise, 0.1],
  ["a quarter of the noise in pairs", noise / 4, null],
];
const rows = [];
for (const [judgeName, inPairs, step] of judges) {
  const judge = await ScriptedJudge.start({
    otherwise: score(({ finalText }, { attempts }) => {
      const given =
        (worth.get(finalText) ?? NaN) + (attempts.length === 2 ? inPairs : noise) * normal();
      const bounded = Math.min(1, Math.max(0, given));
      return step === null ? bounded : Math.round(bounded / step) * step;
    }),
  });
  const label = `${new URL(judge.endpoint.baseURL).host}/scripted`;
  for (const [name, options] of ways) {
    const scored = await Promise.all(
      groups.map((group) =>
        rulerScoreGroup(group, judge.endpoint, {
          ...{ ...options, cache: false, prices: { [label]: { input: 1.1, output: 4.4 } } },
        }),
      ),
    );
    const agreement = scored.map(({ trajectories }) =>
      rankCorrelation(
        trajectories.map(({ reward }) => reward ?? 0),
        trajectories.map(({ messages }) => worth.get(messages.at(-1)?.content as string) ?? NaN),
      ),
    );
    const known = agreement.map((one) => one ?? 0);
    const cents = 100 * mean(scored.map(({ judgement }) => judgement.costUsd ?? NaN));
    const error = Math.sqrt(
      mean(known.map((one) => (one - mean(known)) ** 2)) / (known.length - 1),
    );
    rows.push({
      judge: judgeName,
      way: name,
      "rank correlation": mean(known).toFixed(3),
      "±": (1.96 * error).toFixed(3),
      requests: (judge.requests.length / groups.length).toFixed(1),
      "cents a group": cents.toFixed(3),
      "per cent": (mean(known) / cents).toFixed(2),
    });
    judge.requests.length = 0;
    console.log(JSON.stringify(rows.at(-1)));
  }
  await judge.close();
}
console.table(rows);
