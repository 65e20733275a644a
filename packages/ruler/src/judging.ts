import { HoneError } from "@hone/core";
import type { Trajectory } from "@hone/core";
import { boundAnswerSchema, readAnswer, repairRequest } from "./answer.ts";
import type { AttemptScore } from "./answer.ts";
import { cachedAnswer, rememberAnswer } from "./answer-cache.ts";
import { collectAttempts } from "./attempts.ts";
import type { Attempt } from "./attempts.ts";
import type { Candidate } from "./conversation.ts";
import { fenceKeys } from "./fence-keys.ts";
import { openJudgeRollout } from "./hone-rollout.ts";
import { callJudge } from "./judge-call.ts";
import type { CallSettings, JudgeMessage, JudgeReply } from "./judge-call.ts";
import { JudgeError } from "./judge-error.ts";
import { costOf } from "./prices.ts";
import { promptParts, userMessage } from "./prompt.ts";
import type { PromptParts } from "./prompt.ts";
import { throwIfAborted } from "./retry.ts";
import { mean, passSpread, positionBias, seededOrders } from "./seeded-order.ts";
import type { Settings } from "./settings.ts";

export interface MemberScore {
  /** Mean over the passes. */
  score: number;
  explanation: string;
  /** The score of each pass. */
  passes: readonly number[];
}

/** What a judging took and found, beside the scores. */
export interface Judgement {
  /** `zero_variance`: all members did the same (or there is only one), so nobody was asked. */
  status: "judged" | "zero_variance" | "failed";
  judge: string;
  /** The judge's own conversations, one a pass, also those that failed. Their reward is null. */
  trajectories: Trajectory[];
  /** Different attempts among the members. */
  attempts: number;
  calls: number;
  /** Answers that came from the cache. */
  cachedAnswers: number;
  repairs: number;
  promptTokens: number;
  /** Of the prompt tokens, those that the provider had cached. */
  cachedTokens: number;
  completionTokens: number;
  /** Null where no price is known. */
  costUsd: number | null;
  /** See `positionBias` and `passSpread` in the guide; null for one pass. */
  positionBias: number | null;
  passSpread: number | null;
  failedPasses: number;
  /** What the token budget left out. */
  cuts: string[];
  error: HoneError | null;
}

export interface JudgedMembers {
  /** By member; null where none was given. */
  scores: (MemberScore | null)[];
  judgement: Judgement;
}

interface Pass {
  order: readonly number[];
  scores: readonly AttemptScore[] | null;
  trajectory: Trajectory | null;
  calls: number;
  cached: boolean;
  repairs: number;
  error: JudgeError | null;
}

/** Asks the judge about the members of one group: one call a pass, none where all did the same. */
export async function judgeMembers(
  groupId: string,
  candidates: readonly Candidate[],
  settings: Settings,
): Promise<JudgedMembers> {
  throwIfAborted(settings.signal);
  const set = collectAttempts(candidates);
  const nothing = candidates.map(() => null);
  const empty = judgementOf(settings, set.attempts.length);
  if (set.attempts.length === 0 || (set.attempts.length === 1 && !settings.alwaysJudge)) {
    return { scores: nothing, judgement: empty };
  }
  const secret = await settings.platform.installSecret();
  const contents = set.attempts.map(({ content }) => content);
  const keys = await fenceKeys(secret, settings.rubric, contents);
  // By id, so that the members' order in the group does not show in the prompt.
  const sorted = [...set.attempts.entries()].sort(([a], [b]) =>
    (keys.ids[a] ?? "") < (keys.ids[b] ?? "") ? -1 : 1,
  );
  const attempts = sorted.map(([, attempt]) => attempt);
  const ids = sorted.map(([index]) => keys.ids[index] as string);
  let parts: PromptParts;
  try {
    parts = promptParts({ ...set, attempts }, { fence: keys.fence, ids }, settings);
  } catch (error) {
    if (!JudgeError.isInstance(error)) throw error;
    return { scores: nothing, judgement: { ...empty, status: "failed", error } };
  }
  const seed = (settings.seed ^ Number.parseInt(keys.fence.slice(0, 8), 16)) | 0;
  const orders = seededOrders(attempts.length, settings.passes, seed);
  const passes = await Promise.all(
    orders.map((order) => judgePass(groupId, parts, ids, order, settings)),
  );
  return summarise(candidates.length, attempts, passes, { ...empty, cuts: parts.cuts });
}

async function judgePass(
  groupId: string,
  parts: PromptParts,
  ids: readonly string[],
  order: readonly number[],
  settings: Settings,
): Promise<Pass> {
  const messages: JudgeMessage[] = [
    { role: "system", content: parts.system },
    { role: "user", content: userMessage(parts, order) },
  ];
  const pass: Pass = {
    order,
    scores: null,
    trajectory: null,
    calls: 0,
    cached: false,
    repairs: 0,
    error: null,
  };
  const remembered = await cachedAnswer(messages, settings);
  const known = remembered && readAnswer(remembered.content, ids);
  if (remembered && known?.ok) {
    const trajectory = newTrajectory(groupId, messages, settings);
    addReply(trajectory, remembered);
    trajectory.metadata["cached"] = true;
    return { ...pass, cached: true, trajectory, scores: inOrder(ids, known.scores) };
  }
  try {
    await converse(groupId, messages, ids, pass, settings);
  } catch (error) {
    if (!JudgeError.isInstance(error)) throw error;
    pass.error = error;
  }
  return pass;
}

/** Question, answer, and where the answer does not hold one question more. */
async function converse(
  groupId: string,
  messages: JudgeMessage[],
  ids: readonly string[],
  pass: Pass,
  settings: Settings,
): Promise<void> {
  const { target, lane, plan, fetch, timeoutMs } = settings.call();
  const rollout = target.hone
    ? await openJudgeRollout({ ...target, hone: target.hone }, groupId, {
        lane,
        plan,
        fetch,
        timeoutMs,
      })
    : null;
  const trajectory = newTrajectory(groupId, messages, settings);
  trajectory.rolloutId = rollout?.id ?? null;
  pass.trajectory = trajectory;
  const started = performance.now();
  let answered = false;
  const schema = target.hone ? boundAnswerSchema(pass.order.map((index) => ids[index]!)) : null;
  try {
    for (let turn = 0; ; turn += 1) {
      const reply = await paidCall(messages, settings, {
        ...(rollout && { baseURL: rollout.baseURL }),
        ...(schema && { schema }),
      });
      pass.calls += 1;
      addReply(trajectory, reply, settings);
      const problem = unusable(reply);
      const read = problem ?? readAnswer(reply.content, ids);
      if (read.ok) {
        pass.scores = inOrder(ids, read.scores);
        answered = true;
        // An answer that needed repair is no answer to this prompt: it is asked again next time.
        if (turn === 0) await rememberAnswer(messages, reply, settings);
        return;
      }
      if (turn > 0) {
        throw new JudgeError(
          `${target.label} gave no valid scores, also when told what was wrong. ${read.problem}`,
          { failure: failureOf(reply) },
        );
      }
      pass.repairs += 1;
      const again = repairRequest(read.problem, ids);
      messages.push(
        { role: "assistant", content: (reply.content ?? "").slice(0, 20_000) },
        { role: "user", content: again },
      );
      trajectory.messages.push({ role: "user", content: again });
    }
  } finally {
    trajectory.durationMs = performance.now() - started;
    trajectory.metrics["repairs"] = pass.repairs;
    await rollout?.end(
      answered
        ? { status: "finished", reward: null, metadata: { kind: "judge", judges: groupId } }
        : { status: "failed", error: { type: "judge_failed", message: "No valid scores." } },
    );
  }
}

async function paidCall(
  messages: readonly JudgeMessage[],
  settings: Settings,
  own: Partial<Pick<CallSettings, "baseURL" | "schema">>,
): Promise<JudgeReply> {
  const { budget, price } = settings;
  const prompt = messages.reduce((sum, { content }) => sum + settings.countTokens(content), 0);
  const estimate = { promptTokens: prompt, cachedTokens: 0, completionTokens: 1000 };
  const settle = budget?.reserve(price ? costOf(estimate, price) : 0);
  let cost = 0;
  try {
    const reply = await callJudge(messages, { ...settings.call(), ...own });
    cost = replyCost(reply, settings) ?? 0;
    return reply;
  } finally {
    settle?.(cost);
  }
}

function replyCost(reply: JudgeReply, { price }: Settings): number | null {
  return reply.costUsd ?? (price ? costOf(reply.usage, price) : null);
}

function unusable(reply: JudgeReply): { ok: false; problem: string } | null {
  if (reply.refusal) return { ok: false, problem: "The answer was a refusal." };
  if (reply.finishReason === "length") {
    return { ok: false, problem: "The answer was cut off: make the explanations shorter." };
  }
  return null;
}

function failureOf(reply: JudgeReply): "refused" | "truncated" | "invalid_answer" {
  if (reply.refusal || reply.finishReason === "content_filter") return "refused";
  return reply.finishReason === "length" ? "truncated" : "invalid_answer";
}

function inOrder(
  ids: readonly string[],
  scores: ReadonlyMap<string, AttemptScore>,
): AttemptScore[] {
  return ids.map((id) => scores.get(id) as AttemptScore);
}

function newTrajectory(
  groupId: string,
  messages: readonly JudgeMessage[],
  settings: Settings,
): Trajectory {
  return {
    rolloutId: null,
    model: settings.target.model,
    policy: null,
    messages: [...messages],
    tools: null,
    histories: [],
    reward: null,
    metrics: {},
    metadata: { kind: "judge", judges: groupId, judge: settings.target.label },
    logs: [],
    usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
    startedAt: Date.now(),
    durationMs: 0,
  };
}

function addReply(trajectory: Trajectory, reply: JudgeReply, settings?: Settings): void {
  trajectory.messages.push({
    role: "assistant",
    content: reply.content,
    ...(reply.reasoning ? { reasoning_content: reply.reasoning } : {}),
  });
  // What came from the cache cost nothing this time.
  if (!settings) return;
  if (settings.target.hone && reply.model) trajectory.policy = reply.model;
  trajectory.usage.completions += 1;
  trajectory.usage.promptTokens += reply.usage.promptTokens;
  trajectory.usage.completionTokens += reply.usage.completionTokens;
  const add = (name: string, value: number): void => {
    trajectory.metrics[name] = (trajectory.metrics[name] ?? 0) + value;
  };
  add("cached_tokens", reply.usage.cachedTokens);
  const cost = replyCost(reply, settings);
  if (cost !== null) add("cost_usd", cost);
}

function judgementOf(settings: Settings, attempts: number): Judgement {
  return {
    status: "zero_variance",
    judge: settings.target.label,
    trajectories: [],
    attempts,
    calls: 0,
    cachedAnswers: 0,
    repairs: 0,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
    costUsd: 0,
    positionBias: null,
    passSpread: null,
    failedPasses: 0,
    cuts: [],
    error: null,
  };
}

function summarise(
  members: number,
  attempts: readonly Attempt[],
  passes: readonly Pass[],
  empty: Judgement,
): JudgedMembers {
  const sum = (value: (pass: Pass) => number): number =>
    passes.reduce((total, pass) => total + value(pass), 0);
  const costs = passes
    .filter(({ calls }) => calls > 0)
    .map(({ trajectory }) => trajectory?.metrics["cost_usd"]);
  const valid = passes.flatMap(({ order, scores }) => (scores ? [{ order, scores }] : []));
  const numbers = valid.map(({ order, scores }) => ({
    order,
    scores: scores.map(({ score }) => score),
  }));
  const judgement: Judgement = {
    ...empty,
    status: valid.length > 0 ? "judged" : "failed",
    trajectories: passes.flatMap(({ trajectory }) =>
      trajectory?.messages.at(-1)?.role === "assistant" ? [trajectory] : [],
    ),
    calls: sum(({ calls }) => calls),
    cachedAnswers: sum(({ cached }) => (cached ? 1 : 0)),
    repairs: sum(({ repairs }) => repairs),
    promptTokens: sum(({ trajectory }) => trajectory?.usage.promptTokens ?? 0),
    cachedTokens: sum(({ trajectory }) => trajectory?.metrics["cached_tokens"] ?? 0),
    completionTokens: sum(({ trajectory }) => trajectory?.usage.completionTokens ?? 0),
    costUsd: costs.every((cost) => cost !== undefined)
      ? costs.reduce((total, cost) => total + cost, 0)
      : null,
    positionBias: positionBias(numbers),
    passSpread: passSpread(numbers),
    failedPasses: passes.length - valid.length,
    error: passes.find(({ error }) => error)?.error ?? null,
  };
  const scores: (MemberScore | null)[] = Array.from({ length: members }, () => null);
  if (valid.length > 0) {
    for (const [index, attempt] of attempts.entries()) {
      const given = valid.map((pass) => pass.scores[index] as AttemptScore);
      const perPass = given.map(({ score }) => score);
      const judged = {
        score: mean(perPass),
        explanation: given.map(({ explanation }) => explanation).join(" | "),
        passes: perPass,
      };
      for (const member of attempt.members) scores[member] = judged;
    }
  }
  return { scores, judgement };
}
