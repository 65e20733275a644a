import { randomBytes } from "node:crypto";
import {
  type Datum,
  deletedModelSchema,
  HoneError,
  healthSchema,
  modelInfoSchema,
  operationInfoSchema,
  type OperationResult,
  policyName,
  textCompletionSchema,
} from "@hone/core";
import { followOperation, type Transport } from "@hone/transport";

/** One answer: prompt and sampled ids, and the engine's logprob of each sampled one. */
export interface Answer {
  prompt: number[];
  ids: number[];
  logprobs: number[];
  /** The policy that the server says it is of. */
  policy: string;
  /** The engine that sampled it. */
  engine: string;
  /** The logprob of the likeliest token at each place; none unless they were asked for. */
  likeliest: number[];
}

export interface Sampling {
  temperature?: number;
  topP?: number;
  maxTokens?: number;
  /** Tells how likely the likeliest token was at each place, too. */
  likeliest?: boolean;
}

/** A model that is there for the time of an examination: trained, sampled and deleted over HTTP as anybody's. */
export class Subject {
  readonly name = `doctor-${randomBytes(4).toString("hex")}`;
  readonly #transport: Transport;
  readonly #signal: AbortSignal;
  /** Seconds that each publish took. */
  readonly publishes: number[] = [];
  /** The newest policy. */
  step = 0;

  constructor(transport: Transport, signal: AbortSignal) {
    this.#transport = transport;
    this.#signal = signal;
  }

  /** What is served, in which type, and how long a sequence may be. */
  async begin(): Promise<{ base: string; dtype: string; maxModelLen: number }> {
    const how = { signal: this.#signal };
    const { base, components } = await this.#transport.json("GET", "/health", healthSchema, how);
    const dtype = Object.values(components).flatMap(({ dtype: told }) =>
      typeof told === "string" ? [told] : [],
    )[0];
    const { maxModelLen } = await this.#transport.json(
      ...(["PUT", `/v1/models/${this.name}`, modelInfoSchema] as const),
      { ...how, body: { seed: 1 } },
    );
    return { base, dtype: dtype ?? "float32", maxModelLen };
  }

  /** Nothing of it stays. Called whatever happened, so it does not listen to the signal. */
  async end(): Promise<void> {
    const path = `/v1/models/${this.name}?force=true`;
    await this.#transport.json("DELETE", path, deletedModelSchema).catch((error: unknown) => {
      if (!HoneError.isInstance(error) || error.code !== "model_not_found") throw error;
    });
  }

  /** A large step towards these sequences, and away from those. */
  async learn(towards: readonly number[][], away: readonly number[][], rate: number) {
    const data = [
      ...towards.map((ids) => datumOf(ids, 1)),
      ...away.map((ids) => datumOf(ids, -0.1)),
    ];
    await this.#operation({ type: "forward_backward", data, fresh: true });
    const config = { learningRate: rate };
    const result = await this.#operation({ type: "optim_step", config });
    if (result.type !== "optim_step") throw unexpected(result);
    this.step = result.step;
  }

  /** The trainer's logprob of each token but the first, under the newest policy. */
  async trained(sequences: readonly number[][], temperature = 1): Promise<number[][]> {
    const data = sequences.map((ids) => datumOf(ids));
    const result = await this.#operation({ type: "forward", data, temperature });
    if (result.type !== "forward") throw unexpected(result);
    return result.logprobs;
  }

  async sampled(
    prompt: string | readonly number[],
    step: number,
    { temperature = 1, topP = 1, maxTokens = 24, likeliest = false }: Sampling = {},
  ): Promise<Answer> {
    let engine = "the engine";
    const answer = await this.#transport.json("POST", "/v1/completions", textCompletionSchema, {
      body: {
        ...{ model: this.at(step), prompt, temperature, top_p: topP, max_tokens: maxTokens },
        ...{ logprobs: likeliest ? 1 : 0, return_token_ids: true },
      },
      signal: this.#signal,
      onHeaders: (headers) => void (engine = headers.get("x-hone-engine") ?? engine),
    });
    const { token_ids: ids = [], prompt_token_ids: given = [], logprobs } = answer.choices[0] ?? {};
    return {
      ...{ prompt: given, ids, logprobs: logprobs?.token_logprobs ?? [] },
      ...{ policy: answer.model, engine },
      likeliest: (logprobs?.top_logprobs ?? []).map((top) => Math.max(...Object.values(top))),
    };
  }

  /** Begins many long answers, of which somebody reads the beginning; `signal` hangs up. */
  async stream(prompt: string, maxTokens: number, signal: AbortSignal): Promise<void> {
    const body = { model: this.at(0), prompt, temperature: 2, max_tokens: maxTokens, n: 64 };
    const response = await this.#transport.open("POST", "/v1/completions", {
      ...{ body: { ...body, stream: true }, signal },
    });
    await response.body?.getReader().read();
  }

  at(step: number): string {
    return policyName(this.name, step);
  }

  async #operation(op: object): Promise<OperationResult> {
    const clientToken = `doctor-${randomBytes(9).toString("hex")}`;
    const path = `/v1/models/${this.name}/operations`;
    const { id } = await this.#transport.json("POST", path, operationInfoSchema, {
      ...{ body: { clientToken, op }, signal: this.#signal },
    });
    for await (const event of followOperation(this.#transport, id, { signal: this.#signal })) {
      if (event.type === "stage" && event.stage === "publish") this.publishes.push(event.seconds);
      if (event.type !== "ended") continue;
      const { status, result, error } = event.operation;
      if (status === "succeeded" && result) return result;
      throw new HoneError(
        `The trainer could not do its part: ${error?.message ?? `the operation ${status}`}`,
        { code: "train_failed" },
      );
    }
    throw new HoneError(`The operation ${id} did not end.`, { code: "invalid_response" });
  }
}

/** A sequence whose every token but the first is learnt, with this weight; 0 where it is only read. */
function datumOf(ids: readonly number[], weight?: number): Datum {
  const [tokens, targets] = [ids.slice(0, -1), ids.slice(1)];
  return weight === undefined
    ? { tokens, targets }
    : { tokens, targets, weights: tokens.map(() => weight) };
}

function unexpected({ type }: OperationResult): HoneError {
  return new HoneError(`The server answered with a result of ${type}.`, {
    code: "invalid_response",
  });
}
