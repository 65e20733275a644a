import { hideKey, HoneError } from "@hone/core";
import type { RolloutInfo, RolloutMode } from "@hone/core";
import { patientRequest, type ConnectionSettings, type Fetch } from "@hone/transport";
import { createContextFetch, createRolloutFetch, sendBeside } from "./rollout-fetch.ts";
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

/** Fits `new Anthropic(…)`, whose base URL has no `/v1` at its end. */
export interface AnthropicConnection extends Connection {
  /** Keeps the SDK from sending the `ANTHROPIC_AUTH_TOKEN` of the environment. */
  authToken: null;
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
  readonly #server: ConnectionSettings | null;

  constructor(given: {
    rolloutId: string;
    mode: RolloutMode;
    signal: AbortSignal;
    fetch: Fetch;
    connection: Connection;
    /** Null where the model is of another API. */
    server: ConnectionSettings | null;
  }) {
    this.rolloutId = given.rolloutId;
    this.name = given.connection.model;
    this.mode = given.mode;
    this.signal = given.signal;
    this.fetch = given.fetch;
    this.#connection = given.connection;
    this.#server = given.server;
  }

  connection(): Connection {
    return hideKey({ ...this.#connection });
  }

  /**
   * A connection to a policy that is asked in this rollout and does not train by it: a frozen opponent, a helper, a
   * judge. A number is a policy of this model, `at(0)` the untrained one; a name is another model of the server, or
   * `name@N`. What it answers is not recorded. Throws `invalid_config` on a model of another API.
   */
  at(policy: number | string): Connection {
    const server = this.#server;
    if (server === null) {
      throw new HoneError(
        `The model ${this.name} is of another API, which has no policies of this server. Make a client of your own for the other side.`,
        { code: "invalid_config" },
      );
    }
    if (policy === this.name) {
      throw new HoneError(
        `"${policy.slice(0, 80)}" is the model of this rollout. Use model.connection(), or name one of its policies: at(0).`,
        { code: "invalid_config" },
      );
    }
    const fetch: Fetch = (input, init) => {
      const signal = init?.signal ? AbortSignal.any([init.signal, this.signal]) : this.signal;
      return server.fetch(input, patientRequest({ ...init, signal }));
    };
    const { serverURL, apiKey } = server;
    const model = typeof policy === "string" ? policy : `${this.name}@${policy}`;
    return hideKey({ baseURL: `${serverURL}/v1`, apiKey, model, fetch });
  }

  /**
   * The same for Anthropic's SDK: `const { model: name, ...connection } = model.anthropic()`, then
   * `new Anthropic(connection)`. Other clients of that API, which add `/messages` themselves, take `connection()`.
   * Throws `invalid_config` on a model of another API, which is asked in chats only.
   */
  anthropic(): AnthropicConnection {
    if (!this.#server) {
      throw new HoneError(
        `The model ${this.name} is of another API, which is compared in chats only. Use model.connection() and an ` +
          "OpenAI-compatible client.",
        { code: "invalid_config" },
      );
    }
    const baseURL = this.#connection.baseURL.replace(/\/v1$/, "");
    return hideKey({ ...this.#connection, baseURL, authToken: null });
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
    server: {
      ...settings,
      fetch: async (input, init) =>
        await sendBeside(context, init?.signal, async () => await settings.fetch(input, init)),
    },
    connection: {
      baseURL: context.baseURL,
      apiKey: settings.apiKey,
      model: context.model,
      fetch: createRolloutFetch(settings, context),
    },
  });
}
