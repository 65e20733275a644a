import { setTimeout } from "node:timers/promises";
import { HoneError, requireObject, wrongKind } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { backoffMs, mayPass, retryAdvice, retryAfterMs } from "@hone/transport";
import { ComparisonModel } from "../rollouts/comparison-model.ts";
import { gather } from "../rollouts/gather.ts";
import type { Rollout } from "../rollouts/rollout-run.ts";

/** OpenAI-compatible APIs, and the variable that holds the key. */
const providers: Readonly<Record<string, { baseURL: string; key: string }>> = {
  openai: { baseURL: "https://api.openai.com/v1", key: "OPENAI_API_KEY" },
  openrouter: { baseURL: "https://openrouter.ai/api/v1", key: "OPENROUTER_API_KEY" },
};

/** Another model that answers the verdict's scenarios. */
export interface OtherModel {
  /** Two APIs may serve models of one name. */
  label: string;
  model: ComparisonModel;
  /** Tokens that an answer of it may have: more for a model that thinks first. @default the run's answerTokens */
  answerTokens?: number | undefined;
}

export interface OtherModelSettings {
  /** The variable that holds the key of an API that is named by its URL. */
  keyVariable: string;
  answerTokens?: number | undefined;
  environment?: Readonly<Record<string, string | undefined>>;
}

/** `none` leaves out those before it, such as those that a run began with; a name is taken once. */
export function otherModels(names: readonly string[], settings: OtherModelSettings): OtherModel[] {
  const last = names.lastIndexOf("none");
  return [...new Set(names.slice(last + 1))].map((name) => otherModel(name, settings));
}

/**
 * `openai/gpt-4o-mini`, `openrouter/qwen/qwen3-8b`, or any OpenAI-compatible API by its URL:
 * `http://host:port/v1#model`. Keys come from the environment alone.
 */
export function otherModel(name: string, settings: OtherModelSettings): OtherModel {
  const { answerTokens, keyVariable, environment = process.env } = settings;
  const { model, baseURL, key } = /^https?:\/\//.test(name) ? readURL(name) : readProvider(name);
  // A server of one's own often wants none; SDKs want one to send.
  const apiKey = environment[key ?? keyVariable] || (key === null ? "none" : "");
  if (!apiKey) throw invalid(`Set ${key} to compare with ${name}.`);
  return { label: name, model: new ComparisonModel({ baseURL, apiKey, model }), answerTokens };
}

interface Named {
  model: string;
  baseURL: string;
  /** The variable of a provider's key. */
  key: string | null;
}

function readProvider(name: string): Named {
  const slash = name.indexOf("/");
  const prefix = name.slice(0, Math.max(slash, 0));
  const provider = Object.hasOwn(providers, prefix) ? providers[prefix] : undefined;
  const model = name.slice(slash + 1);
  if (provider && model) return { model, ...provider };
  throw invalid(
    `"${name}" names no model: use ${Object.keys(providers).join("/…, ")}/… or http://host:port/v1#model.`,
  );
}

function readURL(name: string): Named {
  const [baseURL = "", ...rest] = name.split("#");
  const model = rest.join("#");
  const url = URL.canParse(baseURL) ? new URL(baseURL) : null;
  // Not repeated in the message: it may hold a key.
  if (url?.username || url?.password || url?.search) {
    throw invalid("A URL to compare with holds no key: the key comes from the environment.");
  }
  if (url && model) return { baseURL, model, key: null };
  throw invalid(`"${name}" names no model: write http://host:port/v1#model.`);
}

export function requireOthers(where: string, others: unknown): void {
  const wanted = "a list of what otherModel() gives as compare";
  if (!Array.isArray(others)) throw wrongKind(where, wanted, others, "compare");
  for (const [at, one] of others.entries()) {
    const param = `compare[${at}]`;
    requireObject(where, one, wanted, param);
    if (!("model" in one && one.model instanceof ComparisonModel)) {
      throw wrongKind(where, wanted, one, param);
    }
  }
}

/**
 * Begins the rollout with each model and ends it after its first answer: a wrong key, a wrong name or an answer
 * that has no room is to be known before the hours of training, not after them.
 */
export async function checkOthers<Scenario>(
  others: readonly OtherModel[],
  rolloutOf: (other: OtherModel) => Rollout<Scenario>,
  scenario: Scenario,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    others.map(async (other) => {
      const why = await firstAnswer(other, rolloutOf(other), scenario, signal);
      if (why === null) return;
      throw invalid(
        `${other.label} cannot be compared with: ${why}. Nothing has been trained yet.`,
      );
    }),
  );
}

/** How often a first request is sent again that may be answered a little later. */
const mostRetries = 3;

/** Why the model cannot be compared with; null if its first answer is all right. */
async function firstAnswer<Scenario>(
  { model }: OtherModel,
  rollout: Rollout<Scenario>,
  scenario: Scenario,
  signal: AbortSignal,
): Promise<string | null> {
  const answered = new AbortController();
  const ends = AbortSignal.any([signal, answered.signal]);
  let fault: string | null = null;
  const { baseURL, apiKey, name } = model;
  const asked = new ComparisonModel({
    ...{ baseURL, apiKey, model: name },
    fetch: async (input, init) => {
      answered.signal.throwIfAborted();
      for (let retry = 0; ; retry += 1) {
        const sent = await settle(model.fetch(input, init));
        fault = "response" in sent ? await faultOf(sent.response.clone()) : messageOf(sent.error);
        if (retry < mostRetries && mayPassLater(sent)) {
          const headers = "response" in sent ? sent.response.headers : undefined;
          await setTimeout(retryAfterMs(headers) ?? backoffMs(retry), null, { signal: ends });
          continue;
        }
        answered.abort();
        if ("error" in sent) throw sent.error;
        return sent.response;
      }
    },
  });
  try {
    const limits = { timeoutMs: 120_000, signal: ends } as const;
    await gather(asked, rollout, [scenario], { mode: "eval", ...limits });
  } catch (error) {
    if (signal.aborted) throw error;
    if (!answered.signal.aborted) return fault ?? messageOf(error);
  }
  return fault;
}

type Sent = { response: Response } | { error: unknown };

async function settle(sending: Promise<Response>): Promise<Sent> {
  try {
    return { response: await sending };
  } catch (error) {
    return { error };
  }
}

/** Too many requests, an API that is down, a connection that breaks. */
function mayPassLater(sent: Sent): boolean {
  if ("error" in sent) return true;
  return retryAdvice(sent.response.headers) ?? mayPass(sent.response.status);
}

interface Answer {
  choices?: { message?: { content?: unknown; tool_calls?: unknown }; finish_reason?: unknown }[];
  error?: { message?: unknown };
}

async function faultOf(response: Response): Promise<string | null> {
  if (response.headers.get("content-type")?.startsWith("text/event-stream")) return null;
  const body = (await response.json().catch(() => null)) as Answer | null;
  const { message } = body?.error ?? {};
  if (!response.ok)
    return `${response.status} ${typeof message === "string" ? message : ""}`.trim();
  if (typeof body !== "object" || body === null) return "its answer is no chat completion";
  const [choice] = body.choices ?? [];
  const { content, tool_calls: calls } = choice?.message ?? {};
  const empty = !calls && (typeof content !== "string" || content.trim() === "");
  return empty && choice?.finish_reason === "length"
    ? "its tokens were used up before its answer began; --compare-tokens gives it more"
    : null;
}

/** What the other models made of the verdict's scenarios; of those that failed, why. */
export interface OthersPlayed {
  evaluations: Record<string, TrajectoryGroup[]>;
  failures: Record<string, string>;
}

/** A model that fails takes nothing from the verdict nor from the others. */
export async function playOthers(
  others: readonly OtherModel[],
  play: (other: OtherModel) => Promise<TrajectoryGroup[]>,
  signal: AbortSignal,
): Promise<OthersPlayed> {
  const played: OthersPlayed = { evaluations: {}, failures: {} };
  for (const other of others) {
    try {
      played.evaluations[other.label] = await play(other);
    } catch (error) {
      if (signal.aborted) throw error;
      played.failures[other.label] = messageOf(error);
    }
  }
  return played;
}

function invalid(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "compare" });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
