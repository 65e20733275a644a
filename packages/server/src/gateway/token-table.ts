import type { TokenLogprob } from "@hone/core";
import type { TokenChance } from "../ports/engine.ts";
import type { Renderer } from "../ports/renderer.ts";

/** Sampled ids with what the engine told of each. */
interface SampledTokens {
  ids: readonly number[];
  logprobs: readonly number[];
  /** One list per id, or none at all where they were not asked for. */
  top: readonly (readonly TokenChance[])[];
}

export interface TokenTable {
  /** OpenAI's `logprobs.content` of sampled ids. */
  content(sampled: SampledTokens): Promise<TokenLogprob[]>;
  /** What the ids spell, special tokens included. */
  text(ids: readonly number[]): Promise<string>;
}

/** Strings of single tokens, asked of the renderer once each. */
export function createTokenTable(renderer: Pick<Renderer, "tokens">): TokenTable {
  const known = new Map<number, { token: string; bytes: number[] }>();

  async function learn(ids: Iterable<number>): Promise<void> {
    const unknown = [...new Set(ids)].filter((id) => !known.has(id));
    if (unknown.length === 0) return;
    const tokens = await renderer.tokens(unknown);
    for (const [i, id] of unknown.entries()) known.set(id, tokens[i]!);
  }

  const chance = ({ id, logprob }: TokenChance) => {
    const { token, bytes } = known.get(id)!;
    return { token, logprob, bytes };
  };

  return {
    async content({ ids, logprobs, top }) {
      await learn([...ids, ...top.flat().map(({ id }) => id)]);
      return ids.map((id, i) => ({
        ...chance({ id, logprob: logprobs[i]! }),
        top_logprobs: (top[i] ?? []).map(chance),
      }));
    },

    async text(ids) {
      await learn(ids);
      return Buffer.from(ids.flatMap((id) => known.get(id)!.bytes)).toString("utf8");
    },
  };
}
