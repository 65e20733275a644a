import { readProviderAnswer } from "@hone/core";
import OpenAI from "openai";
import { wellFormedJson } from "@hone/core";
import { longestTimerMs, throwIfAborted, withinLimit } from "@hone/transport";
import type { Fetch } from "@hone/transport";
import type { Settle } from "./budget.ts";
import { replyCost } from "./call-cost.ts";
import { JudgeError } from "./judge-error.ts";
import { errorInBody, failureOf, mayBeBilled, refusesFormat } from "./judge-failure.ts";
import type { JudgeMessage, JudgeReply } from "./judge-reply.ts";
import type { JudgeTarget, StructuredOutput } from "./judge-target.ts";
import type { Lane } from "./lane.ts";
import type { Price } from "./prices.ts";
import { throwIfPastDeadline, withRetries } from "./retry.ts";
import type { RetryPlan } from "./retry.ts";

export interface CallSettings {
  target: JudgeTarget;
  /** The target's, or that of a rollout on a Hone server. */
  baseURL: string;
  lane: Lane;
  plan: RetryPlan;
  /** Limit of one request. */
  timeoutMs: number;
  structuredOutput: StructuredOutput;
  /** The answer's shape, for a judge that is held to one. */
  schema: Readonly<Record<string, unknown>>;
  parameters: Readonly<Record<string, unknown>>;
  price: Price | null;
  /** Sets money aside for one request, where a budget is kept. */
  reserve: (() => Promise<Settle>) | null;
  fetch: Fetch;
}

/** One completion of the judge, retried where that can help. */
export async function callJudge(
  messages: readonly JudgeMessage[],
  settings: CallSettings,
): Promise<JudgeReply> {
  const { lane, plan, target } = settings;
  for (;;) {
    const format = weaker(settings.structuredOutput, lane.structuredOutput);
    try {
      return await withRetries(lane, plan, () => attempt(messages, format, settings));
    } catch (error) {
      // Our own server has every form, and a small judge is nothing without it: there it is an error.
      if (format === "none" || target.hone || !refusesFormat(error)) throw error;
      downgrade(lane, format === "json_schema" ? "json_object" : "none", target.label, error);
    }
  }
}

/** Told once that it has no such output, the judge is asked for less from then on. */
function downgrade(
  lane: Lane,
  next: NonNullable<Lane["structuredOutput"]>,
  label: string,
  error: unknown,
): void {
  // A call that was under way may learn late what another has learnt before.
  if (weaker(next, lane.structuredOutput) === lane.structuredOutput) return;
  lane.structuredOutput = next;
  const instead = next === "json_object" ? "any JSON object" : "JSON in plain words";
  console.warn(
    `RULER: ${label} refuses this form of response_format and is asked for ${instead} as long as this process runs. More of its answers may not hold. Set structuredOutput to choose the form. (${error instanceof Error ? error.message : String(error)})`,
  );
}

/** Not more than the user wants, nor than the provider has. */
function weaker(wanted: StructuredOutput, had: StructuredOutput | null): StructuredOutput {
  const order = ["none", "json_object", "json_schema"] as const;
  return had !== null && order.indexOf(had) < order.indexOf(wanted) ? had : wanted;
}

async function attempt(
  messages: readonly JudgeMessage[],
  format: StructuredOutput,
  settings: CallSettings,
): Promise<JudgeReply> {
  const { plan, target } = settings;
  const settle = await settings.reserve?.();
  let costUsd: number | null = 0;
  let answered = false;
  let timeout = 0;
  try {
    // The reservation may have been waited for.
    throwIfAborted(plan.signal);
    throwIfPastDeadline(plan);
    const left = plan.deadline - performance.now();
    timeout = Math.max(1, Math.min(settings.timeoutMs, Math.ceil(left)));
    costUsd = null;
    const { data, response } = await withinLimit(timeout, plan.signal, async (signal) => {
      const request = clientOf(settings).chat.completions.create(
        {
          ...settings.parameters,
          model: target.model,
          // A provider may refuse half a character, which any cut of a text leaves.
          messages: JSON.parse(wellFormedJson(JSON.stringify(messages))) as JudgeMessage[],
          stream: false,
          ...responseFormat(format, settings.schema),
        },
        // The client's own limit ends with the headers: ours is the one that counts.
        { timeout: longestTimerMs, maxRetries: 0, signal },
      );
      return await request.withResponse();
    });
    answered = true;
    const refused = errorInBody(data, response.headers);
    if (refused) throw refused;
    const reply = readCompletion(data);
    costUsd = replyCost(reply, settings.price);
    return { ...reply, costUsd };
  } catch (error) {
    if (costUsd === null && !mayBeBilled(error, answered)) costUsd = 0;
    throwIfAborted(plan.signal);
    throw failureOf(error, settings, timeout);
  } finally {
    settle?.(costUsd);
  }
}

function clientOf({ target, baseURL, fetch }: CallSettings): OpenAI {
  const origin = new URL(target.baseURL).origin;
  return new OpenAI({
    baseURL,
    apiKey: target.apiKey,
    // The environment's other settings are OpenAI's; they are no business of another provider.
    adminAPIKey: null,
    organization: null,
    project: null,
    webhookSecret: null,
    logLevel: "off",
    fetch: async (input, init) => {
      const url = new URL(input instanceof Request ? input.url : input);
      if (url.origin !== origin) throw new Error(`The judge's key does not go to ${url.origin}.`);
      const headers = new Headers();
      for (const name of ["accept", "content-type"]) {
        const value = new Headers(init?.headers).get(name);
        if (value) headers.set(name, value);
      }
      headers.set("authorization", `Bearer ${target.apiKey}`);
      // A redirect would carry the key to a place that nobody named.
      return await fetch(input, { ...init, headers, redirect: "error" });
    },
  });
}

function responseFormat(
  format: StructuredOutput,
  schema: CallSettings["schema"],
): {
  response_format?: OpenAI.ResponseFormatJSONObject | OpenAI.ResponseFormatJSONSchema;
} {
  if (format === "none") return {};
  if (format === "json_object") return { response_format: { type: "json_object" } };
  return {
    response_format: {
      type: "json_schema",
      json_schema: { name: "scores", strict: true, schema: { ...schema } },
    },
  };
}

/** Only what is there: providers differ in all but the first choice's message. */
function readCompletion(value: unknown): JudgeReply {
  const answer = readProviderAnswer(value);
  if (!answer) {
    throw new JudgeError(
      "The judge's server answered with something that is no chat completion. Is its baseURL right?",
      {
        failure: "provider_error",
      },
    );
  }
  return {
    content: answer.content,
    reasoning: answer.reasoning,
    refusal: answer.refusal,
    finishReason: answer.finishReason,
    model: answer.model ?? "",
    ...readUsage(record(record(value)["usage"])),
  };
}

/** Both counts, or nothing: half of a bill is none. No completion has a prompt of no tokens. */
function readUsage(usage: Record<string, unknown>): Pick<JudgeReply, "usage" | "costUsd"> {
  const details = record(usage["prompt_tokens_details"]);
  const promptTokens = count(usage["prompt_tokens"]);
  const completionTokens = count(usage["completion_tokens"]);
  const cachedTokens = count(details["cached_tokens"] ?? usage["prompt_cache_hit_tokens"]) ?? 0;
  return {
    usage:
      promptTokens && completionTokens !== null
        ? { promptTokens, cachedTokens, completionTokens }
        : null,
    costUsd: count(usage["cost"]),
  };
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function count(value: unknown): number | null {
  return typeof value === "number" && value >= 0 ? value : null;
}
