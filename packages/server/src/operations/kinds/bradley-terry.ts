import {
  type BradleyTerryOp,
  bradleyTerryObjectiveSchema,
  type ConversationPair,
} from "@hone/core";
import { conversations } from "../../ledger/trajectory.ts";
import { wholeConversation } from "../../step-data/examples.ts";
import { supervised } from "./supervised-step.ts";
import { takenRollout } from "./taken-rollout.ts";

/**
 * One step of a reward model on preferences: of each pair the chosen side has reward 1 and the rejected one 0. Both are
 * read as `/v1/score` reads a conversation: rendered whole, without the definitions of tools.
 */
export const bradleyTerry = supervised<BradleyTerryOp>({
  async sides({ context, record }, renderer, pair, name) {
    const read = async (kind: "chosen" | "rejected") => {
      const side = pair[kind];
      if ("rolloutId" in side) {
        const taken = await takenRollout(context, record.keyId, side.rolloutId);
        const [longest] = conversations(taken);
        return await wholeConversation(renderer, `${name}.${kind}`, longest?.messages ?? []);
      }
      const { prompt } = pair as ConversationPair;
      return await wholeConversation(renderer, `${name}.${kind}`, [...prompt, ...side]);
    };
    return [
      { reward: 1, example: await read("chosen") },
      { reward: 0, example: await read("rejected") },
    ];
  },

  loss: (config) => bradleyTerryObjectiveSchema.parse({ ...config, type: "bradley_terry" }),
  reference: () => null,
});
