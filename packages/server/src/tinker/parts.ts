import type {
  ModelInfo,
  OperationInfo,
  PolicyInfo,
  putModelSchema,
  submitOperationSchema,
} from "@hone/core";
import type { z } from "zod";
import type { Sampler } from "../ports/engine.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { PolicyRouter } from "../ports/rollouts.ts";

/** What `/tinker` is spoken over: the same operations, models and engines that `/v1` has. */
export interface TinkerParts {
  base: string;
  engine: Sampler;
  renderer: Pick<Renderer, "info">;
  router: Pick<PolicyRouter, "leaseForModel">;
  models: {
    put(name: string, body: z.output<typeof putModelSchema>): Promise<ModelInfo>;
    info(name: string): ModelInfo;
    /** Keeps policy `step` from being removed. */
    pin(name: string, step: number): Promise<PolicyInfo>;
  };
  operations: {
    submit(
      keyId: string,
      model: string,
      body: z.output<typeof submitOperationSchema>,
    ): Promise<OperationInfo>;
    get(keyId: string, id: string): OperationInfo;
    /** Ids of a model's operations that are queued or running, in their order: of all keys, or of one. */
    unfinished(model: string, keyId?: string): string[];
    /** Resolves when the operation has ended, or with the signal. */
    ended(id: string, signal: AbortSignal): Promise<void>;
    /** `forward_backward` of a program since its last step (operations/calls.ts). */
    callsSinceStep(program: {
      keyId: string;
      model: string;
      prefix: string;
      before: string;
    }): number;
  };
}
