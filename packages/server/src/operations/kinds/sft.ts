import { type SftOp, sftObjectiveSchema } from "@hone/core";
import { ofRollout, tokenised } from "../../step-data/examples.ts";
import { supervised } from "./supervised-step.ts";
import { takenRollout } from "./taken-rollout.ts";

/** One step of imitation: of conversations, or of rollouts of this server. */
export const sft = supervised<SftOp>({
  async sides({ context, record }, renderer, example, name) {
    const { trainOn } = record.op.config;
    const made =
      "rolloutId" in example
        ? ofRollout(name, await takenRollout(context, record.keyId, example.rolloutId), trainOn)
        : await tokenised(renderer, name, example, { trainOn });
    return [{ reward: 1, example: made }];
  },

  loss: () => sftObjectiveSchema.parse({}),
  reference: () => null,
});
