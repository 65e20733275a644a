import type { TokenLogprob } from "@hone/core";
import type { Renderer } from "../ports/renderer.ts";

export interface TokenTable {
  /** OpenAI's `logprobs.content` of sampled ids. */
  content(ids: readonly number[], logprobs: readonly number[]): Promise<TokenLogprob[]>;
}

/** Strings of single tokens, asked of the renderer once each. */
export function createTokenTable(renderer: Renderer): TokenTable {
  const known = new Map<number, { token: string; bytes: number[] }>();
  return {
    async content(ids, logprobs) {
      const unknown = [...new Set(ids)].filter((id) => !known.has(id));
      if (unknown.length > 0) {
        const tokens = await renderer.tokens(unknown);
        for (const [i, id] of unknown.entries()) known.set(id, tokens[i]!);
      }
      return ids.map((id, i) => {
        const { token, bytes } = known.get(id)!;
        return { token, logprob: logprobs[i]!, bytes, top_logprobs: [] };
      });
    },
  };
}
