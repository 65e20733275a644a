import {
  type ChatMessage,
  defaultFeedbackTemplate,
  HoneError,
  policyName,
  type TrainOp,
} from "@hone/core";
import pLimit from "p-limit";
import type { Model } from "../../policies/models.ts";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import type { Renderer } from "../../ports/renderer.ts";
import type { Selection } from "../../step-data/filter.ts";
import type { OperationContext } from "../context.ts";
import { aborted } from "./kind.ts";
import type { Teacher } from "./teacher.ts";
import { whileHeld } from "./while-held.ts";

/** The teacher's logprobs of sampled tokens, by completion. */
export type Taught = Record<string, number[]>;
type Rollout = TrainOp["groups"][number]["rollouts"][number];

/** Requests to the engine at once. */
const atOnce = 8;

/** Refuses what rollouts carry for a teacher that the configuration does not have, and what does not fit the ledger. */
export async function checkGiven(
  { ledger, store }: OperationContext,
  { config, groups }: TrainOp,
): Promise<void> {
  const teacher = config.type === "distill" ? config.teacher : null;
  const reads = teacher !== null && typeof teacher === "object" && "feedback" in teacher;
  if (teacher === "given") await store.flush();
  for (const [g, { rollouts }] of groups.entries()) {
    for (const [r, { rolloutId, teacherLogprobs, feedback }] of rollouts.entries()) {
      const param = `op.groups[${g}].rollouts[${r}]`;
      if (feedback !== undefined && !reads) {
        throw unread(`${param}.feedback`, 'teacher: { "feedback": true }');
      }
      if (teacherLogprobs === undefined) continue;
      if (teacher !== "given") throw unread(`${param}.teacherLogprobs`, 'teacher: "given"');
      const completions = await ledger.list(rolloutId);
      for (const [id, logprobs] of Object.entries(teacherLogprobs)) {
        const found = completions.find((one) => one.id === id);
        if (found?.sampled.length === logprobs.length) continue;
        throw new HoneError(
          found
            ? `The completion "${id}" has ${found.sampled.length} sampled tokens, and ${logprobs.length} logprobs are given. Give one for each.`
            : `The rollout "${rolloutId}" has no completion "${id}". GET /v1/rollouts/{id}/completions lists them.`,
          { code: "invalid_request", param: `${param}.teacherLogprobs` },
        );
      }
    }
  }
}

function unread(param: string, wanted: string): HoneError {
  return new HoneError(
    `It does nothing with this configuration: only type "distill" with ${wanted} reads it. Leave it out.`,
    { code: "invalid_request", param },
  );
}

/** What the rollouts carry. */
export function givenLogprobs({ groups }: TrainOp): Taught {
  return Object.assign(
    {},
    ...groups.flatMap(({ rollouts }) => rollouts.map((rollout) => rollout.teacherLogprobs ?? {})),
  ) as Taught;
}

/**
 * How likely the teacher finds the answers once it has read the feedback on their rollout. Its prompt is the answer's
 * request with the feedback in its last user message, rendered whole; the sampled ids follow it as they were sampled.
 */
export async function readFeedback(
  context: OperationContext,
  given: {
    op: TrainOp;
    student: Model;
    teacher: Teacher;
    selection: Selection;
    signal: AbortSignal;
  },
  completions: ReadonlyMap<string, LedgerCompletion>,
): Promise<{ taught: Taught; warnings: string[] }> {
  const { op, student, teacher, selection, signal } = given;
  const { engines, live, base, models } = context;
  const { config } = op;
  const chosen = config.type === "distill" ? config.teacher : null;
  const asked =
    chosen !== null && typeof chosen === "object" && "feedback" in chosen ? chosen.feedback : true;
  const template = asked === true ? defaultFeedbackTemplate : asked;
  const renderer = context.renderer.withTemplate(student.chatTemplateKwargs);
  const rollouts = new Map<string, Rollout>(
    op.groups.flatMap((group) => group.rollouts.map((one) => [one.rolloutId, one] as const)),
  );
  const taught: Taught = {};
  let placeless = 0;
  let long = 0;
  const policy = policyName(teacher.model, teacher.step);
  const limit = pLimit(atOnce);
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);

  async function score(completion: LedgerCompletion, feedback: string): Promise<void> {
    if (either.aborted) throw aborted();
    const messages = withFeedback(completion, template, feedback);
    if (messages === null) {
      placeless++;
      return;
    }
    const prompt = await render(renderer, messages, completion);
    const ids = [...prompt, ...completion.sampled];
    // The engine samples one token more.
    if (ids.length >= base.maxModelLen) {
      long++;
      return;
    }
    for await (const { promptLogprobs } of engines.generate({
      ...{ model: policy, prompt: ids, n: 1, maxTokens: 1, temperature: 1, topP: 1, seed: 0 },
      ...{ stop: [], stopTokenIds: [], stream: false, promptLogprobs: true, signal: either },
    })) {
      if (promptLogprobs) taught[completion.id] = [...promptLogprobs.slice(prompt.length - 1)];
    }
  }

  await whileHeld(live, policy, async () => {
    models.require(teacher.model);
    await live.ensure(teacher.model, teacher.step);
    const scored = selection.completions
      .filter(({ trainable }) => trainable)
      .flatMap(({ id, rollout }) => {
        const completion = completions.get(id);
        const feedback = rollouts.get(selection.rollouts[rollout]?.id ?? "")?.feedback;
        if (!completion || feedback === undefined) return [];
        return [limit(() => score(completion, feedback))];
      });
    try {
      await Promise.all(scored);
    } catch (error) {
      // Those that wait or run are of no use now, and the teacher is held until the last of them has ended.
      stop.abort();
      await Promise.allSettled(scored);
      throw error;
    }
  });
  const warnings = [];
  if (placeless > 0) {
    warnings.push(
      `${placeless} answer(s) have no teacher: their request has no user message in which the feedback could stand.`,
    );
  }
  if (long > 0) {
    warnings.push(
      `${long} answer(s) have no teacher: with the feedback they are longer than the context of ${base.maxModelLen} tokens.`,
    );
  }
  return { taught, warnings };
}

/** The messages of the answer's request, with the feedback; null where there is no place for it. */
function withFeedback(
  { kind, messages }: LedgerCompletion,
  template: string,
  feedback: string,
): ChatMessage[] | null {
  const at = kind === "chat" ? messages.findLastIndex(({ role }) => role === "user") : -1;
  const message = messages[at];
  if (message?.role !== "user") return null;
  const { content } = message;
  const said = typeof content === "string" ? content : content.map(({ text }) => text).join("");
  // By functions: what a text spells is never a pattern.
  const text = template.replaceAll(/\{(feedback|message)\}/g, (_all, name) =>
    name === "feedback" ? feedback : said,
  );
  return messages.with(at, { ...message, content: text });
}

async function render(
  renderer: Renderer,
  messages: readonly ChatMessage[],
  { id, tools }: LedgerCompletion,
): Promise<number[]> {
  try {
    return await renderer.render(messages, tools);
  } catch (cause) {
    if (!HoneError.isInstance(cause) || cause.code !== "invalid_request") throw cause;
    throw new HoneError(`The teacher's prompt for ${id} cannot be rendered: ${cause.message}`, {
      code: "train_failed",
      cause,
    });
  }
}
