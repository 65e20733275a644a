import type { LiveAdapter, ProbeAnswer } from "./live-set.ts";

/** What traffic asks of an engine: token ids in, token ids out. */
export interface Sampler {
  /** The name under which the bare base answers, and its context length in tokens. */
  info(): Promise<{ base: string; maxModelLen: number }>;
  /**
   * Samples `n` choices. With `stream` the chunks come as they are sampled, without it there is one chunk for
   * each choice. The generator ends only when every choice has finished. An engine that dies throws
   * `engine_error`, an engine that is not there `engine_unavailable`. Where every place is taken for too long it
   * throws `engine_busy`. Aborting the signal ends the generation.
   */
  generate(request: EngineRequest): AsyncIterable<EngineChunk>;
}

/** One engine behind the server (docs/worker-contract.md). */
export interface Engine extends Sampler {
  readonly kind: "embedded" | "vllm";
  /**
   * Makes an adapter servable under a name that was never used before. An engine with a sidecar resolves to what that has
   * seen of it since this call: the engine lists the adapter, and answered its probe so (null where it has none). Of any
   * other engine that is still to be asked.
   */
  load(adapter: LiveAdapter): Promise<{ answer: ProbeAnswer | null } | void>;
  /** Unloads it. Requests that are using it finish. */
  unload(policy: string): Promise<void>;
  /**
   * The adapters that it serves now, with the folder of each, because a name alone does not say whose weights
   * answer to it. An engine on another disk names the weights instead: `sha256:<digest>`.
   */
  served(): Promise<Map<string, string>>;
  /** Its own counters as Prometheus text, where it has such a page. */
  metrics?(): Promise<string>;
}

/** All engines behind the server, as traffic and policies see them: what is live is served by every one that takes traffic. */
export interface Engines extends Sampler {
  /**
   * Makes an adapter live. Resolves once every engine that takes traffic serves it from this folder; one that
   * does not gets no traffic until it does. Rejects, and nothing is live, where no engine takes it.
   */
  load(adapter: LiveAdapter): Promise<void>;
  /** It is not live any more; rejects where an engine did not let go of it. */
  unload(policy: string): Promise<void>;
  /** Asks the engines what they serve, and does not wait for one that hangs. What none of them does any more is not live from now on: those are told. */
  takeLost(): Promise<string[]>;
  /** The rollout is over: no request of it follows. */
  rolloutEnded(rollout: string): void;
  /** Unloads what engines serve although it is not live, as far as `isOver` knows it. */
  unloadStale(isOver: (policy: string, path: string) => boolean): Promise<void>;
  /** Rejects where no engine that is there samples from the bare base: where all policies fail, it is not theirs then. */
  requireBase(): Promise<void>;
}

/** Whose request it is: what has tokens in common is best sampled in one place. */
export interface Affinity {
  rollout: string;
  /** The rollouts of one group share their prompt. */
  group: string | null;
}

export interface EngineRequest {
  /** `name@N`, or the base's name. */
  model: string;
  /** @default null: a request outside of rollouts */
  affinity?: Affinity | null | undefined;
  prompt: readonly number[];
  n: number;
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number | null;
  stop: readonly string[];
  stopTokenIds: readonly number[];
  /** How many of the likeliest tokens to list at each place. @default 0 */
  topLogprobs?: number | undefined;
  /** Tells how likely each token of the prompt is, too; not with `stream`. @default false */
  promptLogprobs?: boolean | undefined;
  /** What every answer is held to. @default nothing */
  format?: HeldFormat | null | undefined;
  stream: boolean;
  signal: AbortSignal;
  /** Hears which engine samples for it; again where another one has to. */
  onEngine?: ((name: string) => void) | undefined;
}

export type JsonFormat =
  | { type: "json_object" }
  | { type: "json_schema"; schema: Readonly<Record<string, unknown>> };

/** JSON, or what the renderer wrote of calls that have to be. */
export type HeldFormat = JsonFormat | { type: "grammar"; source: string };

export interface EngineChunk {
  index: number;
  /** New visible text, without special tokens and stop strings. */
  text: string;
  tokenIds: readonly number[];
  /** One for each token id, of the distribution that was sampled from. */
  logprobs: readonly number[];
  /**
   * Where the request asks for them, one list per token id: the likeliest tokens of the distribution sampled
   * from, best first. Fewer than asked where top_p leaves fewer; the sampled one is not always among them.
   */
  topLogprobs?: readonly (readonly TokenChance[])[] | undefined;
  /** Where the request asks for them: of each token of the prompt but the first, at temperature 1. */
  promptLogprobs?: readonly number[] | undefined;
  finishReason: "stop" | "length" | null;
}

export interface TokenChance {
  id: number;
  logprob: number;
}
