import { HoneError, policyName, scoresSchema } from "@hone/core";
import type { ChatMessage, TrajectoryGroup } from "@hone/core";
import { openRunLog, readGroups, type Policy } from "@hone/client";
import { join } from "node:path";
import { digestOf, type JudgeCase } from "./judge-case.ts";
import { pairsOf, type LabelledPair } from "./pairs.ts";
import type { Given, LearntJudge } from "./options.ts";

/** Conversations in one request. */
const together = 64;

/** A judge that gives scores: pairs from the labels, a head beside the adapter, asked at `/v1/score`. */
export async function learnScores(
  train: readonly JudgeCase[],
  heldOut: readonly JudgeCase[],
  given: Given & { digest: string },
): Promise<LearntJudge> {
  const { mode, name, seed, hone, out, signal, onEvent, digest } = given;
  const { learningRate = 1e-4, epochs = 1, batchSize = 16 } = given;
  const { pairs, ties } = pairsOf(train);
  const measured = pairsOf(heldOut);
  requirePairs(pairs, "to train on");
  requirePairs(measured.pairs, "held out");
  const model = await hone.model({ name, seed }, { signal });
  const { base } = await model.info({ signal });
  const settings = {
    ...{ name, judge: mode, method: "bradley-terry", data: digest, seed, batchSize },
    heldOut: digestOf(measured.pairs),
  };
  const log = await openRunLog(out, { settings: { ...settings, base } });
  onEvent?.({ type: "started", out });
  const metric = mode === "pointwise" ? "judge/pair_accuracy" : "judge/accuracy";
  const evaluate = async (policy: Policy, label: string) => {
    const began = performance.now();
    const groups = await judgedPairs(policy, measured.pairs, metric, signal);
    const metrics = [metric, "judge/parse_rate"];
    const [record] = await log.evaluation(label, groups, { metrics });
    const seconds = (performance.now() - began) / 1000;
    onEvent?.({ type: "evaluated", label, metric, score: record?.score?.mean ?? null, seconds });
    return groups;
  };
  const made = log.records.find((one) => one.type === "evaluation" && one.label === "base");
  const before =
    made?.type === "evaluation" && made.file !== undefined
      ? await readGroups(join(out, "trajectories", made.file))
      : await evaluate(model.at(0), "base");
  const learnt = await model.bradleyTerry(pairs.map(asPair), {
    ...{ learningRate, epochs, batchSize, seed, signal },
    onProgress: (event) => {
      if (event.type !== "step") return;
      const { step, steps, loss, policy } = event;
      onEvent?.({ type: "learning", step, steps, loss, policy });
    },
  });
  const after = await evaluate(model, "trained");
  onEvent?.({ type: "ended" });
  const left = learnt.dropped.length;
  return {
    ...{ before, after, policy: learnt.policy, ties: ties + measured.ties },
    notes: [
      "Before means the base, which has no head: it tells no pair apart, and each counts half.",
      ...(ties + measured.ties > 0
        ? [`${ties + measured.ties} pairs are ties, of which Bradley-Terry says nothing: left out.`]
        : []),
      ...(left > 0 ? [`${left} pairs were left out: ${learnt.dropped[0]?.reason}.`] : []),
    ],
  };
}

function requirePairs(pairs: readonly LabelledPair[], what: string): void {
  if (pairs.length > 1) return;
  throw new HoneError(
    `The data has ${pairs.length} pairs ${what}. Bradley-Terry learns from preferences that are no ties, or from answers to one conversation whose labels differ.`,
    { code: "invalid_request", param: "data" },
  );
}

function asPair({ input, better, worse }: LabelledPair) {
  const said = (content: string) => [{ role: "assistant" as const, content }];
  return { prompt: [...input], chosen: said(better), rejected: said(worse) };
}

/** Each pair is scored twice, the second time in a request in the reverse order: its place must not matter. */
async function judgedPairs(
  policy: Policy,
  pairs: readonly LabelledPair[],
  metric: string,
  signal: AbortSignal | undefined,
): Promise<TrajectoryGroup[]> {
  const conversations = pairs.flatMap(({ input, better, worse }) =>
    [better, worse].map((content): ChatMessage[] => [...input, { role: "assistant", content }]),
  );
  const given = await scoresOf(policy, conversations, signal);
  const reverse = (await scoresOf(policy, conversations.toReversed(), signal)).toReversed();
  return pairs.map((pair, at) => {
    const [right, swapped] = [given, reverse].map((scores) =>
      rightly(scores[2 * at], scores[2 * at + 1]),
    ) as [number, number];
    const known = [given, reverse].flatMap((scores) => [scores[2 * at], scores[2 * at + 1]]);
    const accuracy = (right + swapped) / 2;
    return {
      ...{ id: `pair-${at}`, scenario: pair, exceptions: [], metadata: {}, metrics: {}, logs: [] },
      trajectories: [
        {
          ...{ rolloutId: null, model: policy.name, policy: nameOf(policy), tools: null },
          messages: conversations[2 * at]!,
          histories: [{ messages: conversations[2 * at + 1]!, tools: null }],
          reward: accuracy,
          metrics: {
            [metric]: accuracy,
            "judge/accuracy_given": right,
            "judge/accuracy_swapped": swapped,
            // The base has no head to read a score from.
            ...(policy.step !== 0 && {
              "judge/parse_rate": known.filter((one) => one !== null).length / known.length,
            }),
          },
          ...{ metadata: {}, logs: [], startedAt: 0, durationMs: 0 },
          usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
        },
      ],
    };
  });
}

function nameOf({ name, step }: Policy): string {
  return step === null ? name : policyName(name, step);
}

function rightly(better: number | null | undefined, worse: number | null | undefined): number {
  if (better === null || better === undefined || worse === null || worse === undefined) return 0;
  return better === worse ? 0.5 : Number(better > worse);
}

async function scoresOf(
  policy: Policy,
  conversations: readonly ChatMessage[][],
  signal: AbortSignal | undefined,
): Promise<(number | null)[]> {
  // The base has no head, so that it scores all alike.
  if (policy.step === 0) return conversations.map(() => 0);
  const scores: (number | null)[] = [];
  for (let from = 0; from < conversations.length; from += together) {
    const items = conversations.slice(from, from + together).map((messages) => ({ messages }));
    const answer = await policy.transport.json("POST", "/v1/score", scoresSchema, {
      ...{ body: { model: nameOf(policy), items, tooLong: "null" }, signal },
    });
    scores.push(...answer.data.map(({ score }) => score));
  }
  return scores;
}
