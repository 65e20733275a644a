import { HoneError, refuseUnknownOptions, requireNumber } from "@hone/core";
import type { ChatMessage, ScoreItem } from "@hone/core";
import { findServer, Transport } from "@hone/transport";
import { platform } from "#platform";
import { named } from "./reward-function.ts";
import type { Reader, RewardFunction } from "./reward-function.ts";
import { requestScores } from "./score-requests.ts";
import type { ItemResult, ScoreSettings } from "./score-requests.ts";

export interface RewardModelOptions {
  /** The name that the server's operator gave it: `serve --reward-model helpful=…`. */
  model: string;
  /** If the model has several labels, the one whose probability is the reward. */
  label?: string | undefined;
  /**
   * What is scored of a trajectory: messages, which the model's own chat template renders, or a plain text. Null
   * means that the function does not apply. @default the trajectory's messages
   */
  input?: Reader<readonly ChatMessage[] | string> | undefined;
  /**
   * What happens if a trajectory is longer than the model reads: an error, null (does not apply), or a score of the
   * trajectory's end. @default "error"
   */
  tooLong?: "error" | "null" | "truncate" | undefined;
  /** Called for each trajectory of which only the end was scored. @default a warning in the console, once */
  onTruncated?: ((cut: { tokens: number; maxTokens: number }) => void) | undefined;
  /** Trajectories in one request. @default 64 */
  batchSize?: number | undefined;
  /** @default HONE_URL, else the server of this machine */
  baseURL?: string | undefined;
  apiKey?: string | undefined;
  /** How often a request is repeated after lost connections, 429, 502 and 503. @default 4 */
  maxRetries?: number | undefined;
  /** How long one request may take. @unit ms @default 600000 */
  timeoutMs?: number | undefined;
  /** @default globalThis.fetch */
  fetch?: typeof globalThis.fetch | undefined;
}

const optionNames = [
  "model",
  "label",
  "input",
  "tooLong",
  "onTruncated",
  "batchSize",
  "baseURL",
  "apiKey",
  "maxRetries",
  "timeoutMs",
  "fetch",
] as const satisfies (keyof RewardModelOptions)[];

interface Waiting {
  item: ScoreItem;
  signal: AbortSignal | undefined;
  resolve: (result: ItemResult) => void;
  reject: (error: unknown) => void;
}

/**
 * Makes a reward function of a sequence classifier on the Hone server. Trajectories that are scored at the same
 * time go out in one request.
 */
export function rewardModel(options: RewardModelOptions): RewardFunction {
  refuseUnknownOptions("rewardModel()", options, optionNames);
  const { model, label = null, tooLong = "error", input } = options;
  const whole = (name: "batchSize" | "maxRetries" | "timeoutMs", fallback: number, least: number) =>
    requireNumber(name, options[name] ?? fallback, { least, whole: true });
  const batchSize = Math.min(whole("batchSize", 64, 1), 1024);
  const maxRetries = whole("maxRetries", 4, 0);
  const timeoutMs = whole("timeoutMs", 600_000, 1);
  if (!["error", "null", "truncate"].includes(tooLong)) {
    throw new HoneError(`tooLong is "error", "null" or "truncate", not "${tooLong as string}".`, {
      code: "invalid_config",
      param: "tooLong",
    });
  }
  const onTruncated = options.onTruncated ?? warnOnce(model);
  let waiting: Waiting[] = [];

  function settings(): ScoreSettings {
    const { baseURL, apiKey } = options;
    // Looked for at each request: a server that was restarted may listen elsewhere.
    const found = findServer(
      { ...platform.honeServer(), baseURL, apiKey },
      { label: `the reward model "${model}"` },
    );
    const fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
    return {
      server: new Transport({ ...found, maxRetries, timeoutMs, fetch }),
      model,
      label,
      tooLong,
    };
  }

  async function send(batch: readonly Waiting[], signal: AbortSignal | undefined): Promise<void> {
    try {
      const items = batch.map(({ item }) => item);
      const results = await requestScores(items, settings(), signal);
      for (const [at, { resolve }] of batch.entries()) resolve(results[at]!);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  /** Those of one signal go together, so that an abort ends nobody else's request. */
  function flush(): void {
    const all = waiting;
    waiting = [];
    for (const signal of new Set(all.map((entry) => entry.signal))) {
      const those = all.filter((entry) => entry.signal === signal);
      for (let at = 0; at < those.length; at += batchSize) {
        void send(those.slice(at, at + batchSize), signal);
      }
    }
  }

  return named(model, async (trajectory, context) => {
    const given = input ? input(trajectory, context) : trajectory.messages;
    if (given === null || given === undefined || given.length === 0) return null;
    const item = typeof given === "string" ? { text: given } : { messages: [...given] };
    const result = await new Promise<ItemResult>((resolve, reject) => {
      if (waiting.length === 0) setTimeout(flush, 0);
      waiting.push({ item, signal: context.signal, resolve, reject });
    });
    if ("error" in result) throw result.error;
    const { score, tokens, truncated } = result.score;
    if (truncated) onTruncated({ tokens, maxTokens: result.maxTokens });
    return score;
  });
}

function warnOnce(model: string): (cut: { tokens: number; maxTokens: number }) => void {
  let said = false;
  return ({ tokens, maxTokens }) => {
    if (said) return;
    said = true;
    console.warn(
      `The reward model "${model}" reads ${maxTokens} tokens: of longer trajectories (one has ${tokens}) only the end is scored.`,
    );
  };
}
