import { HoneError, requireModelRef } from "@hone/core";
import { findServer, requireURL } from "@hone/transport";
import type { Platform } from "../platform.ts";

/** How a judge is held to the answer's shape. */
export type StructuredOutput = "json_schema" | "json_object" | "none";

export interface JudgeEndpoint {
  /** The OpenAI-compatible URL, as for any SDK. It mostly ends in `/v1`. */
  baseURL: string;
  /** @default the environment's key, if the URL is that of a known provider */
  apiKey?: string | undefined;
  model: string;
}

/** `provider/model`, such as `openai/o4-mini`, `openrouter/qwen/qwen3-32b` or `hone/my-agent@0`, or an endpoint. */
export type Judge = string | JudgeEndpoint;

/** A judge with everything that a request needs. */
export interface JudgeTarget {
  /** How it is named in metrics and logs. */
  label: string;
  baseURL: string;
  apiKey: string;
  model: string;
  structuredOutput: StructuredOutput;
  /** What its dialect calls the limit of an answer. */
  answerLimit: AnswerLimit;
  /** Keys that must not stand in an error: that of the request, and those of the environment. */
  secrets: readonly string[];
  /** Set if the model is on a Hone server, where each request is a rollout. */
  hone: { serverURL: string; model: string; step: number | null } | null;
}

type AnswerLimit = "max_tokens" | "max_completion_tokens";

interface Provider {
  baseURL: string;
  key: string;
  structuredOutput: StructuredOutput;
  answerLimit: AnswerLimit;
}

const providers: Readonly<Record<string, Provider>> = {
  openai: {
    ...provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    // Its reasoning models refuse max_tokens.
    answerLimit: "max_completion_tokens",
  },
  // Anthropic's OpenAI dialect takes response_format and does nothing with it.
  anthropic: provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "none"),
  openrouter: provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
  gemini: provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
  groq: provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
  mistral: provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
  deepseek: provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "json_object"),
  together: provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
  fireworks: provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
  xai: provider("https://api.x.ai/v1", "XAI_API_KEY"),
};

function provider(
  baseURL: string,
  key: string,
  structuredOutput: StructuredOutput = "json_schema",
): Provider {
  return { baseURL, key, structuredOutput, answerLimit: "max_tokens" };
}

/** The keys that the environment holds, for whomever, and that of this call. */
function secretsOf(platform: Platform, key: string): string[] {
  const names = [
    ...Object.values(providers).map((known) => known.key),
    ...["HONE_API_KEY", "JUDGE_API_KEY", "OPENAI_ADMIN_KEY", "HONE_RULER_SECRET"],
  ];
  return [key, ...names.flatMap((name) => platform.environment(name) ?? [])];
}

export function resolveJudge(
  judge: Judge,
  platform: Platform,
  apiKey: string | undefined,
): JudgeTarget {
  if (typeof judge !== "string") return endpointTarget(judge, platform, apiKey);
  const slash = judge.indexOf("/");
  const prefix = judge.slice(0, Math.max(slash, 0));
  const model = judge.slice(slash + 1);
  if (prefix === "hone" && model) return honeTarget(judge, model, platform, apiKey);
  const known = Object.hasOwn(providers, prefix) ? providers[prefix] : undefined;
  if (!known || !model) {
    throw badJudge(
      `"${judge}" is no judge. Write provider/model with one of ${Object.keys(providers).join(", ")}, hone/<model>, or {baseURL, apiKey, model}.`,
    );
  }
  const key = apiKey || platform.environment(known.key);
  if (!key) throw noKey(judge, known.key);
  return {
    label: judge,
    baseURL: known.baseURL,
    apiKey: key,
    model,
    structuredOutput: known.structuredOutput,
    answerLimit: known.answerLimit,
    secrets: secretsOf(platform, key),
    hone: null,
  };
}

function endpointTarget(
  judge: JudgeEndpoint,
  platform: Platform,
  apiKey: string | undefined,
): JudgeTarget {
  const url = requireURL(judge.baseURL);
  if (typeof judge.model !== "string" || !judge.model) throw badJudge("The judge has no model.");
  // A key of the environment goes to the origin it was made for, and nowhere else.
  const known = Object.values(providers).find(
    ({ baseURL }) => new URL(baseURL).origin === url.origin,
  );
  const key = judge.apiKey || apiKey || (known ? platform.environment(known.key) : undefined);
  if (!key && known) throw noKey(judge.model, known.key);
  return {
    label: `${url.host}/${judge.model}`,
    baseURL: judge.baseURL.replace(/\/+$/, ""),
    // A server of one's own may want none; the dialect has no way to say so.
    apiKey: key || "none",
    model: judge.model,
    structuredOutput: known?.structuredOutput ?? "json_schema",
    answerLimit: known?.answerLimit ?? "max_tokens",
    secrets: secretsOf(platform, key ?? ""),
    hone: null,
  };
}

function honeTarget(
  label: string,
  ref: string,
  platform: Platform,
  apiKey: string | undefined,
): JudgeTarget {
  const { model, step } = requireModelRef(ref);
  const server = findServer({ ...platform.honeServer(), apiKey }, { label: `"${label}"` });
  return {
    label,
    baseURL: `${server.serverURL}/v1`,
    apiKey: server.apiKey,
    model: ref,
    structuredOutput: "json_schema",
    answerLimit: "max_tokens",
    secrets: secretsOf(platform, server.apiKey),
    hone: { serverURL: server.serverURL, model, step },
  };
}

function noKey(judge: string, variable: string): HoneError {
  return new HoneError(`No API key for ${judge}. Set ${variable}, or pass apiKey.`, {
    code: "invalid_config",
    param: "apiKey",
  });
}

function badJudge(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "judge" });
}
