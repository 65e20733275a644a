import { modelInfoSchema, policyDetailSchema, policyInfoSchema } from "@hone/core";
import type { ModelInfo, PolicyInfo } from "@hone/core";
import { requireOnlySignal } from "../argument-kinds.ts";
import type { Fetch, Transport } from "@hone/transport";
import { sample, type SampleOptions, type Samples } from "../primitives/sample.ts";
import { createContextFetch } from "./rollout-fetch.ts";

/** One policy of a model: `name@N` if `step` is N, the newest served one if `step` is null. */
export class Policy {
  readonly name: string;
  readonly step: number | null;
  /** Sends requests with the key of the Hone client that made this policy. `gather` uses it. */
  readonly transport: Transport;
  /**
   * For OpenAI clients that are made once, at module level. What such a client asks of this model inside a
   * rollout belongs to that rollout. Requests to other servers pass untouched and without the key.
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
    requireOnlySignal("info()", options);
    return await this.transport.json("GET", `/v1/models/${this.name}/state`, modelInfoSchema, {
      signal: options.signal,
    });
  }

  /**
   * The folder of the adapter, in PEFT's format, relative to the server's data directory. A model gives the folder
   * of its newest learnt policy. Null for the base, and for a policy that was removed.
   */
  async checkpoint(options: { signal?: AbortSignal | undefined } = {}): Promise<string | null> {
    requireOnlySignal("checkpoint()", options);
    const step = this.step ?? (await this.info(options)).learnt;
    if (step === 0) return null;
    const path = `/v1/models/${this.name}/policies/${step}`;
    const answer = await this.transport.json("GET", path, checkpointSchema, {
      signal: options.signal,
    });
    return answer.checkpoint;
  }

  /**
   * Samples answers to a plain prompt, a text or token ids, with the ids and logprobs that `forwardBackward` takes. No
   * chat template is applied, and nothing is recorded: for agents there are rollouts.
   */
  async sample(prompt: string | readonly number[], options: SampleOptions = {}): Promise<Samples> {
    return await sample(this, prompt, options);
  }

  /** Keeps the policy, whatever the server removes otherwise; of a model the newest one that was learnt. */
  async save(options: { signal?: AbortSignal | undefined } = {}): Promise<PolicyInfo> {
    requireOnlySignal("save()", options);
    const step = this.step ?? (await this.info(options)).learnt;
    const path = `/v1/models/${this.name}/policies/${step}`;
    return await this.transport.json("PATCH", path, policyInfoSchema, {
      body: { pinned: true },
      signal: options.signal,
    });
  }
}

const checkpointSchema = policyDetailSchema.pick({ checkpoint: true });
