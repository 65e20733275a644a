import { setMaxListeners } from "node:events";
import { newId, type ChatMessage, type Trajectory } from "@hone/core";
import { recordCalls, type RecordedCall } from "./call-recorder.ts";
import { comparisonFetches } from "./comparison-fetch.ts";
import { errorWithoutKey } from "@hone/transport";
import type { ComparisonModel } from "./comparison-model.ts";
import { CallCounter, currentRollout, runInRollout } from "./rollout-context.ts";
import { describe, type RolloutEnd, rolloutOver, withCall, withinTime } from "./rollout-end.ts";
import { RolloutModel } from "./rollout-model.ts";
import { readOutcome } from "./rollout-outcome.ts";
import type { Rollout, RolloutRunOptions } from "./rollout-run.ts";

/** A rollout on a model of another API. No Hone server knows of it, so its trajectory has no rollout id. */
export async function runComparison<Scenario>(
  model: ComparisonModel,
  rollout: Rollout<Scenario>,
  scenario: Scenario,
  options: RolloutRunOptions,
): Promise<RolloutEnd> {
  const ending = new AbortController();
  const signal = AbortSignal.any([options.signal, ending.signal]);
  setMaxListeners(0, signal);
  const counter = new CallCounter();
  const recorded = recordCalls(model.fetch, signal, counter);
  const { baseURL, apiKey, name } = model;
  const rolloutId = newId("ro");
  const context = {
    ...{ rolloutId, model: name, baseURL, signal, calls: counter, record: recorded.fetch },
    parent: currentRollout(),
    fail(error: unknown) {
      if (!ending.signal.aborted) ending.abort(error);
    },
  };
  const fetches = comparisonFetches(context);
  const rolloutModel = new RolloutModel({
    rolloutId,
    mode: options.mode,
    signal,
    fetch: fetches.following,
    server: null,
    connection: { baseURL, apiKey, model: name, fetch: fetches.own },
  });
  const startedAt = Date.now();
  const began = performance.now();
  try {
    const returned = await withinTime(signal, ending, options.timeoutMs, () =>
      runInRollout(context, () => rollout(rolloutModel, scenario, options.place)),
    );
    const outcome = readOutcome(returned);
    const trajectory: Trajectory = {
      rolloutId: null,
      model: name,
      policy: null,
      ...conversationsOf(recorded.calls),
      ...outcome,
      usage: {
        completions: recorded.calls.length,
        promptTokens: recorded.calls.reduce((sum, call) => sum + call.promptTokens, 0),
        completionTokens: recorded.calls.reduce((sum, call) => sum + call.completionTokens, 0),
      },
      startedAt,
      durationMs: performance.now() - began,
    };
    return { trajectory, calls: counter };
  } catch (thrown) {
    const error = errorWithoutKey(thrown, apiKey);
    const duringCall = counter.started > 0 ? counter.current : null;
    if (!ending.signal.aborted) ending.abort(error);
    return { exception: describe(withCall(error, duringCall), null, duringCall), error };
  } finally {
    if (!ending.signal.aborted) ending.abort(rolloutOver());
  }
}

/** The conversations that no later one continues: the longest as the trajectory's own, the others as `histories`. */
function conversationsOf(
  calls: readonly RecordedCall[],
): Pick<Trajectory, "messages" | "tools" | "turns" | "histories"> {
  const all = calls.map(({ messages, tools, answer }) => ({
    messages: [...messages, answer],
    tools,
    turns: [] as NonNullable<Trajectory["turns"]>,
  }));
  // A turn's text is known by its parts only: what the provider took out of it, nobody can put back.
  for (const conversation of all) {
    conversation.turns = calls.flatMap(({ messages, answer, finishReason }) => {
      const message = messages.length;
      const made = [...messages, answer];
      const isPart =
        made.length <= conversation.messages.length &&
        (made.length === conversation.messages.length
          ? conversation.messages.at(-1) === answer
          : continues(conversation.messages, made));
      return isPart ? [{ message, text: null, finish_reason: finishReason }] : [];
    });
  }
  const [longest, ...histories] = all
    .filter((one, at) => !all.some((other, i) => i > at && continues(other.messages, one.messages)))
    .sort((a, b) => b.messages.length - a.messages.length);
  return {
    messages: longest?.messages ?? [],
    tools: longest?.tools ?? null,
    turns: longest?.turns ?? [],
    histories,
  };
}

/** Whether role, text and calls agree. Other fields may differ, because SDKs drop some, such as null ones. */
function continues(later: readonly ChatMessage[], earlier: readonly ChatMessage[]): boolean {
  return (
    later.length > earlier.length &&
    earlier.every(({ role, content }, i) => {
      const other = later[i];
      return (
        other?.role === role &&
        textOf(other.content) === textOf(content) &&
        callsOf(other) === callsOf(earlier[i])
      );
    })
  );
}

function callsOf(message: ChatMessage | undefined): string {
  const calls = message?.role === "assistant" ? (message.tool_calls ?? []) : [];
  return JSON.stringify(calls.map((call) => [call.function.name, call.function.arguments]));
}

function textOf(content: ChatMessage["content"]): string {
  return typeof content === "string" ? content : JSON.stringify(content ?? "").replace(/^""$/, "");
}
