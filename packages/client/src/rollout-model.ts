import type { RolloutInfo, RolloutMode } from "@hone/core";
import type { ConnectionSettings, Fetch } from "./connection-settings.ts";
import { createContextFetch, createRolloutFetch } from "./rollout-context.ts";
import type { RolloutContext } from "./rollout-context.ts";

/** Fits `new OpenAI(…)` and the options of other OpenAI-compatible SDKs. */
export interface Connection {
  /** The rollout's own base URL: what is sampled under it belongs to the rollout. */
  baseURL: string;
  apiKey: string;
  /** What to put into the request's `model`. */
  model: string;
  /** Ends the rollout's calls when the rollout ends, and counts them for its error messages. */
  fetch: Fetch;
}

/** The model as a rollout sees it. */
export class RolloutModel {
  readonly rolloutId: string;
  /** The name to ask for. */
  readonly name: string;
  readonly mode: RolloutMode;
  /** Aborts when the rollout is past its time or the run ends. Pass it to whatever takes one. */
  readonly signal: AbortSignal;
  /** For clients made at module level; see `Model.fetch`. */
  readonly fetch: Fetch;
  readonly #connection: Connection;

  constructor(settings: ConnectionSettings, info: RolloutInfo, context: RolloutContext) {
    this.rolloutId = info.id;
    this.name = context.model;
    this.mode = info.mode;
    this.signal = context.signal;
    this.fetch = createContextFetch(settings);
    this.#connection = {
      baseURL: context.baseURL,
      apiKey: settings.apiKey,
      model: context.model,
      fetch: createRolloutFetch(settings, context),
    };
  }

  connection(): Connection {
    return { ...this.#connection };
  }
}
