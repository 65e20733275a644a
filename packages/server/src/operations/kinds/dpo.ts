import { type DpoOp, dpoObjectiveSchema } from "@hone/core";
import { ofRollout, tokenised } from "../../step-data/examples.ts";
import { sidesOf } from "./preference-sides.ts";
import { supervised } from "./supervised-step.ts";
import { takenRollout } from "./taken-rollout.ts";

/** One step on preferences. */
export const dpo = supervised<DpoOp>({
  async sides({ context, record }, renderer, pair, name) {
    return await sidesOf(pair, name, {
      async taken(rolloutId, side) {
        return ofRollout(side, await takenRollout(context, record.keyId, rolloutId), "assistant");
      },
      given: async (said, { prompt, tools }, side) =>
        await tokenised(
          renderer,
          side,
          { messages: [...prompt, ...said], tools },
          { trainOn: "assistant", from: prompt.length },
        ),
    });
  },

  loss: (config) => dpoObjectiveSchema.parse({ ...config, type: "dpo" }),
  reference: ({ reference }) => (typeof reference === "number" ? reference : null),
});
