import { type BradleyTerryOp, bradleyTerryObjectiveSchema } from "@hone/core";
import { conversations } from "../../ledger/trajectory.ts";
import { wholeConversation } from "../../step-data/examples.ts";
import { sidesOf } from "./preference-sides.ts";
import { supervised } from "./supervised-step.ts";
import { takenRollout } from "./taken-rollout.ts";

/**
 * One step of a reward model on preferences. Both sides of a pair are read as `/v1/score` reads a conversation: rendered
 * whole, without the definitions of tools.
 */
export const bradleyTerry = supervised<BradleyTerryOp>({
  async sides({ context, record }, renderer, pair, name) {
    return await sidesOf(pair, name, {
      async taken(rolloutId, side) {
        const taken = await takenRollout(context, record.keyId, rolloutId);
        const [longest] = conversations(taken);
        return await wholeConversation(renderer, side, longest?.messages ?? []);
      },
      given: async (said, { prompt }, side) =>
        await wholeConversation(renderer, side, [...prompt, ...said]),
    });
  },

  loss: (config) => bradleyTerryObjectiveSchema.parse({ ...config, type: "bradley_terry" }),
  reference: () => null,
});
