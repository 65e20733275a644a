import { type ConversationPair, type DpoOp, dpoObjectiveSchema } from "@hone/core";
import { ofRollout, tokenised } from "../../step-data/examples.ts";
import { supervised } from "./supervised-step.ts";
import { takenRollout } from "./taken-rollout.ts";

/** One step on preferences: of each pair the chosen side has reward 1 and the rejected one 0. */
export const dpo = supervised<DpoOp>({
  async sides({ context, record }, renderer, pair, name) {
    const read = async (kind: "chosen" | "rejected") => {
      const side = pair[kind];
      if ("rolloutId" in side) {
        const taken = await takenRollout(context, record.keyId, side.rolloutId);
        return ofRollout(`${name}.${kind}`, taken, "assistant");
      }
      const { prompt, tools } = pair as ConversationPair;
      return await tokenised(
        renderer,
        `${name}.${kind}`,
        { messages: [...prompt, ...side], tools },
        { trainOn: "assistant", from: prompt.length },
      );
    };
    return [
      { reward: 1, example: await read("chosen") },
      { reward: 0, example: await read("rejected") },
    ];
  },

  loss: (config) => dpoObjectiveSchema.parse({ ...config, type: "dpo" }),
  reference: ({ reference }) => (typeof reference === "number" ? reference : null),
});
