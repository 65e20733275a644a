import { HoneError, type ErrorCode, type RewardModelInfo } from "@hone/core";
import { Agent, request as send } from "undici";
import { z } from "zod";
import { failureOf, parseAnswer } from "../http/child-answer.ts";
import type { Scorer } from "../ports/scorer.ts";

const cardSchema = z.object({
  name: z.string(),
  max_tokens: z.int(),
  labels: z.array(z.string()),
});
const listSchema = z.object({ models: z.array(cardSchema) });
const idScoresSchema = z.object({ scores: z.array(z.number()) });
const scoresSchema = z.object({
  model: cardSchema,
  data: z.array(
    z.object({ score: z.number().nullable(), tokens: z.int(), truncated: z.boolean() }),
  ),
});

export interface HttpScorer extends Scorer {
  close(): Promise<void>;
}

/** The client of the worker's scoring routes. */
export function createHttpScorer(options: {
  /** Asked before each request, because a restarted worker has another port. Throws while there is no worker. */
  baseURL: () => string;
  key: () => string;
}): HttpScorer {
  // Many items behind a training step take as long as they take.
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 4000 });

  async function call<T>(
    schema: z.ZodType<T>,
    path: string,
    body: unknown,
    signal?: AbortSignal,
  ): Promise<T> {
    let status: number;
    let text: string;
    try {
      const response = await send(options.baseURL() + path, {
        method: body === undefined ? "GET" : "POST",
        dispatcher: agent,
        signal,
        headers: {
          authorization: `Bearer ${options.key()}`,
          ...(body !== undefined && { "content-type": "application/json" }),
        },
        body: body === undefined ? null : JSON.stringify(body),
      });
      status = response.statusCode;
      text = await response.body.text();
    } catch (cause) {
      if (HoneError.isInstance(cause)) throw cause;
      if (signal?.aborted) {
        throw new HoneError("The client closed the connection.", { code: "aborted", cause });
      }
      throw new HoneError("The worker does not answer. It may be restarting; send it again.", {
        code: "worker_unavailable",
        cause,
        retryAfterMs: 1000,
      });
    }
    if (status !== 200) throw failure(status, text);
    const parsed = schema.safeParse(parseAnswer(text));
    if (parsed.success) return parsed.data;
    throw new HoneError(`The worker's answer to ${path} is not one of its contract.`, {
      code: "internal_error",
      cause: parsed.error,
    });
  }

  return {
    async list() {
      return (await call(listSchema, "/reward-models", undefined)).models.map(infoOf);
    },

    async score({ model, items, tooLong, label }, signal) {
      const body = { model, items, too_long: tooLong, label: label ?? null };
      const answer = await call(scoresSchema, "/score", body, signal);
      return { object: "hone.scores", model: infoOf(answer.model), data: answer.data };
    },

    async scoreIds(policy, items, signal) {
      return (await call(idScoresSchema, "/score/policy", { policy, items }, signal)).scores;
    },

    close: () => agent.destroy(),
  };
}

function infoOf({ name, max_tokens: maxTokens, labels }: z.infer<typeof cardSchema>) {
  return { name, maxTokens, labels } satisfies RewardModelInfo;
}

function failure(status: number, text: string): HoneError {
  const error = failureOf(text);
  if (error && status < 500) {
    const known: ErrorCode[] = ["model_not_found", "context_length_exceeded"];
    const code = known.find((candidate) => candidate === error.code) ?? "invalid_request";
    return new HoneError(error.message, { code, param: error.param ?? undefined });
  }
  if (status === 503) {
    return new HoneError("The worker takes no requests now. Send it again in a second.", {
      code: "worker_unavailable",
      retryAfterMs: 1000,
    });
  }
  return new HoneError(error?.message ?? `The worker failed on these items (${status}).`, {
    code: "internal_error",
  });
}
