import type { TextLogprobs, TokenLogprob, TopLogprob } from "@hone/core";

/** Turns the logprobs of one choice into the legacy shape, chunk by chunk. */
export interface TextLogprobsWriter {
  write(tokens: readonly TokenLogprob[]): TextLogprobs;
}

export function createTextLogprobs(): TextLogprobsWriter {
  // A character may be spread over several tokens. Its offset is the place where the whole character will stand.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let offset = 0;
  return {
    write(tokens) {
      const out: TextLogprobs = {
        tokens: [],
        token_logprobs: [],
        top_logprobs: [],
        text_offset: [],
      };
      for (const token of tokens) {
        out.tokens.push(nameOf(token));
        out.token_logprobs.push(token.logprob);
        out.top_logprobs.push(byName([...token.top_logprobs, token]));
        out.text_offset.push(offset);
        offset += decoder.decode(Uint8Array.from(token.bytes ?? []), { stream: true }).length;
      }
      return out;
    },
  };
}

/** Two tokens may have one name (a special token and its spelling): the likelier one has it. */
function byName(tokens: readonly TopLogprob[]): Record<string, number> {
  const best = new Map<string, number>();
  for (const token of tokens) {
    const name = nameOf(token);
    best.set(name, Math.max(best.get(name) ?? -Infinity, token.logprob));
  }
  return Object.fromEntries(best);
}

/** A token that is only a part of a character is written as its bytes, as OpenAI does. */
function nameOf({ token, bytes }: TopLogprob): string {
  const own = Buffer.from(bytes ?? []);
  if (!token.includes("\ufffd") || Buffer.from(token).equals(own)) return token;
  return `bytes:${[...own].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}
