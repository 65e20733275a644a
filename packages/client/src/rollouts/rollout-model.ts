import { hideKey } from "@hone/core";
import type { RolloutInfo, RolloutMode } from "@hone/core";
import type { ConnectionSettings, Fetch } from "@hone/transport";
import { createContextFetch, createRolloutFetch } from "./rollout-fetch.ts";
import type { RolloutContext } from "./rollout-context.ts";

/** Fits `new OpenAI(…)` and the options of other OpenAI-compatible SDKs. */
export interface Connection {
  /** The rollout's own base URL. Completions that are asked for under it belong to the rollout. */
  baseURL: string;
  apiKey: string;
  /** What to put into the request's `model`. */
  model: string;
  /** Counts the rollout's calls for its error messages, and ends those under way when the rollout ends. */
  fetch: Fetch;
}

/** The model as a rollout sees it. */
export class RolloutModel {
  readonly rolloutId: string;
  /** The name to ask for. */
  readonly name: string;
  readonly mode: RolloutMode;
  /** Aborts when the rollout is past its time or the run ends. Pass it to everything that takes a signal. */
  readonly signal: AbortSignal;
  /** For clients made at module level; see `Model.fetch`. */
  readonly fetch: Fetch;
  readonly #connection: Connection;

  constructor(given: {
    rolloutId: string;
    mode: RolloutMode;
    signal: AbortSignal;
    fetch: Fetch;
    connection: Connection;
  }) {
    this.rolloutId = given.rolloutId;
    this.name = given.connection.model;
    this.mode = given.mode;
    this.signal = given.signal;
    this.fetch = given.fetch;
    this.#connection = given.connection;
  }

  connection(): Connection {
    return hideKey({ ...this.#connection });
  }
}

export function createRolloutModel(
  settings: ConnectionSettings,
  info: RolloutInfo,
  context: RolloutContext,
): RolloutModel {
  return new RolloutModel({
    rolloutId: info.id,
    mode: info.mode,
    signal: context.signal,
    fetch: createContextFetch(settings),
    connection: {
      baseURL: context.baseURL,
      apiKey: settings.apiKey,
      model: context.model,
      fetch: createRolloutFetch(settings, context),
    },
  });
}
