import { Hone } from "@hone/client";
import { requireModelRef, type Trajectory } from "@hone/core";
import { trainedPolicy } from "../train-judge/trained-judge.ts";
import type { ExaminedJudge } from "../doctor/judge.ts";

/**
 * Throws where the name is of a judge on the Hone server, and the server does not know it: before rollouts are played
 * for it. What other providers know, only a judging tells.
 */
export async function requireKnownJudge(
  name: string,
  judge: ExaminedJudge,
  signal: AbortSignal,
): Promise<void> {
  const [, kind, model = ""] = /^(hone\/|rm:|pointwise:|pairwise:)(.+)$/.exec(name) ?? [];
  if (kind === undefined) return;
  if (kind === "rm:") {
    // Its errors of this kind are thrown. What else may be wrong is for the examination to say.
    await judge.judge(oneOutput, { passes: 1, seed: 0, signal });
    return;
  }
  const hone = new Hone();
  if (kind === "hone/") {
    await hone.model({ name: requireModelRef(model).model, create: false }, { signal });
  } else await trainedPolicy(hone, model);
}

const output: Trajectory = {
  ...{ rolloutId: null, model: null, policy: null, tools: null, histories: [] },
  messages: [
    { role: "user", content: "Hello." },
    { role: "assistant", content: "Hello." },
  ],
  ...{ reward: null, metrics: {}, metadata: {}, logs: [], startedAt: 0, durationMs: 0 },
  usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
};
const oneOutput = {
  ...{ id: "known", scenario: null, trajectories: [output] },
  ...{ exceptions: [], metadata: {}, metrics: {}, logs: [] },
};
