import { modelInfoSchema, policyDetailSchema } from "@hone/core";
import type { ModelInfo } from "@hone/core";
import { requireSignal } from "../argument-kinds.ts";
import type { Fetch, Transport } from "@hone/transport";
import { createContextFetch } from "./rollout-fetch.ts";

/** One policy of a model (`step` is its N), or its newest served one (`step` is null). */
export class Policy {
  readonly name: string;
  readonly step: number | null;
  /** For gather and the like: requests with the key of the Hone client that made this. */
  readonly transport: Transport;
  /**
   * For clients that are made once, at module level: inside a rollout their chat completions of this
   * model belong to the rollout. Requests to other servers pass untouched and without the key.
   */
  readonly fetch: Fetch;

  constructor(transport: Transport, name: string, step: number | null) {
    this.transport = transport;
    this.name = name;
    this.step = step;
    this.fetch = createContextFetch(transport.settings);
  }

  /** The model as the server sees it now. */
  async info(options: { signal?: AbortSignal | undefined } = {}): Promise<ModelInfo> {
    requireSignal("info()", options);
    return await this.transport.json("GET", `/v1/models/${this.name}/state`, modelInfoSchema, {
      signal: options.signal,
    });
  }

  /**
   * The folder of its adapter, in PEFT's format, within the server's data directory; for the model itself, of
   * the newest policy that it has learnt. null for the base, and for a policy that retention removed.
   */
  async checkpoint(options: { signal?: AbortSignal | undefined } = {}): Promise<string | null> {
    requireSignal("checkpoint()", options);
    const step = this.step ?? (await this.info(options)).learnt;
    if (step === 0) return null;
    const path = `/v1/models/${this.name}/policies/${step}`;
    const answer = await this.transport.json("GET", path, checkpointSchema, {
      signal: options.signal,
    });
    return answer.checkpoint;
  }
}

const checkpointSchema = policyDetailSchema.pick({ checkpoint: true });
