import type { ConversationPair, Pair } from "@hone/core";
import type { StepExample } from "../../step-data/examples.ts";

/** How a kind reads the side of a pair: a rollout of the server, or messages behind the pair's prompt. */
interface SideReader {
  taken: (rolloutId: string, name: string) => Promise<StepExample>;
  given: (
    side: ConversationPair["chosen"],
    pair: ConversationPair,
    name: string,
  ) => Promise<StepExample>;
}

/** Both sides of a preference: the chosen one has reward 1 and the rejected one 0. */
export async function sidesOf(pair: Pair, name: string, { taken, given }: SideReader) {
  const read = async (kind: "chosen" | "rejected") => {
    const side = pair[kind];
    return "rolloutId" in side
      ? await taken(side.rolloutId, `${name}.${kind}`)
      : await given(side, pair as ConversationPair, `${name}.${kind}`);
  };
  return [
    { reward: 1, example: await read("chosen") },
    { reward: 0, example: await read("rejected") },
  ];
}
