import type { ChatTemplateKwargs } from "@hone/core";

/** What the gateway needs of rollouts and policies: which policy a request is sampled from. */
export interface PolicyRouter {
  /**
   * Leases the policy for a request under a rollout's base URL. The first request pins the rollout to the
   * newest served policy (or to the step that it was made for), unless `pins` is false. Throws `rollout_not_found`, `rollout_closed`,
   * `model_mismatch` (the body's `model` is not the rollout's), `policy_not_found`.
   */
  leaseForRollout(
    key: string,
    rolloutId: string,
    modelRef: string,
    pins?: boolean,
  ): Promise<PolicyLease>;
  /** Leases the policy for a request outside of any rollout: `name`, `name@N`, or the base's own name. */
  leaseForModel(key: string, modelRef: string): Promise<PolicyLease>;
  /** Names for `GET /v1/models`: aliases, served policies and the base. */
  listModels(): Promise<{ id: string; createdAt: number }[]>;
}

export interface PolicyLease {
  /** The engine's name for it: `name@N`, or the base's name. */
  policy: string;
  rolloutId: string | null;
  /** The group of the rollout, whose members share their prompt. */
  group: string | null;
  /** Arguments of the chat template; null for the renderer's defaults. */
  chatTemplateKwargs: ChatTemplateKwargs | null;
  /** Ends the lease when the request is over: the policy may be unloaded, the rollout's own lease is renewed. */
  release(): void;
}
