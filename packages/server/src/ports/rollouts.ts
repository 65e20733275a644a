import type { ChatTemplateKwargs } from "@hone/core";

/** What the gateway needs of rollouts and policies: which policy a call is sampled from. */
export interface PolicyRouter {
  /**
   * Leases the policy of a call under a rollout's base URL. The first call pins the rollout to the
   * newest served policy (or the step that it was made for). Throws `rollout_not_found`,
   * `rollout_closed`, `model_mismatch` (the body's `model` is not the rollout's), `policy_not_found`.
   */
  leaseForRollout(key: string, rolloutId: string, modelRef: string): Promise<PolicyLease>;
  /** Leases the policy of a call outside any rollout: `name`, `name@N`, or the base's own name. */
  leaseForModel(key: string, modelRef: string): Promise<PolicyLease>;
  /** Names for `GET /v1/models`: aliases, served policies and the base. */
  listModels(): Promise<{ id: string; createdAt: number }[]>;
}

export interface PolicyLease {
  /** The engine's name for it: `name@N`, or the base's name. */
  policy: string;
  rolloutId: string | null;
  /** What the model's chats are rendered with; null for the renderer's defaults. */
  chatTemplateKwargs: ChatTemplateKwargs | null;
  /** The call is over: the policy may be unloaded, the rollout's lease is renewed. */
  release(): void;
}
