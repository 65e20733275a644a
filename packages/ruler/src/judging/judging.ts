import { throwIfAborted } from "@hone/transport";
import { boundAnswerSchema, readAnswer, repairRequest } from "./answer.ts";
import type { AttemptScore } from "./answer.ts";
import { cachedAnswer, rememberAnswer } from "./answer-cache.ts";
import { collectAttempts } from "../prompt/attempts.ts";
import { reservation } from "../judge/call-cost.ts";
import type { Candidate } from "../prompt/conversation.ts";
import { withoutControl } from "../prompt/data-line.ts";
import { fenceKeys } from "../prompt/fence-keys.ts";
import { openJudgeRollout } from "../judge/hone-rollout.ts";
import { callJudge } from "../judge/judge-call.ts";
import type { CallSettings } from "../judge/judge-call.ts";
import { JudgeError } from "../judge/judge-error.ts";
import type { JudgeMessage, JudgeReply } from "../judge/judge-reply.ts";
import { addReply, newTrajectory } from "./judge-trajectory.ts";
import { byTournament, isClose } from "./close-groups.ts";
import { addCost, emptyJudgement, summarise } from "./judgement.ts";
import type { JudgedMembers, Pass } from "./judgement.ts";
import { promptParts, userMessage } from "../prompt/prompt.ts";
import type { PromptParts } from "../prompt/prompt.ts";
import { seededOrders } from "./seeded-order.ts";
import type { Settings } from "./settings.ts";

/** Asks the judge about the members of one group: one call a pass, none where all did the same. */
export async function judgeMembers(
  groupId: string,
  candidates: readonly Candidate[],
  settings: Settings,
): Promise<JudgedMembers> {
  throwIfAborted(settings.signal);
  const set = collectAttempts(candidates);
  const nothing = candidates.map(() => null);
  const empty = emptyJudgement(settings, set.attempts.length);
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
  const seeded = seededOrders(attempts.length, settings.passes, seed);
  const orders = settings.reversed ? seeded.map((order) => order.toReversed()) : seeded;
  const passes = await Promise.all(
    orders.map((order) => judgePass(groupId, parts, ids, order, settings)),
  );
  const judged = summarise(candidates.length, attempts, passes, { ...empty, cuts: parts.cuts });
  if (!isClose(judged, attempts, settings)) return judged;
  return await byTournament(judged, attempts, seed, async (pair) => {
    const chosen = { ...set, attempts: pair.map((at) => attempts[at]!) };
    const pairIds = pair.map((at) => ids[at]!);
    const shown = promptParts(chosen, { fence: keys.fence, ids: pairIds }, settings);
    return await judgePass(groupId, shown, pairIds, [0, 1], settings);
  });
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
    costUsd: 0,
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
      pass.costUsd = addCost(pass.costUsd, reply.costUsd);
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
        const failure = failureOf(reply);
        const more = failure === "truncated" ? " Or let it have more tokens (max_tokens)." : "";
        throw new JudgeError(
          `${target.label} gave no valid scores, also when told what was wrong. ${read.problem}${more}`,
          { failure },
        );
      }
      pass.repairs += 1;
      const again = repairRequest(read.problem, ids);
      messages.push(
        // It may quote an attempt, whose control tokens were escaped when it was read.
        { role: "assistant", content: withoutControl((reply.content ?? "").slice(0, 20_000)) },
        { role: "user", content: again },
      );
      trajectory.messages.push({ role: "user", content: again });
    }
  } finally {
    trajectory.durationMs = performance.now() - started;
    trajectory.metrics["repairs"] = pass.repairs;
    if (pass.costUsd !== null) trajectory.metrics["cost_usd"] = pass.costUsd;
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
  const { budget, price, countTokens } = settings;
  const call = { ...settings.call(), ...own };
  const { schema, parameters } = call;
  const reserve =
    budget && price
      ? reservation(budget, price, { messages, schema, parameters, countTokens })
      : null;
  return await callJudge(messages, { ...call, reserve });
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
