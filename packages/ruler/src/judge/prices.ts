/** US dollars for a million tokens. */
export interface Price {
  input: number;
  /** Input tokens that the provider had cached. @default input */
  cachedInput?: number | undefined;
  output: number;
}

/**
 * List prices by judge label, OpenAI's as of June and Anthropic's as of October 2026 (platform.claude.com,
 * about-claude/pricing). They change: pass `prices` with what you pay. A judge that is in neither table has no
 * cost (null), never zero; nor has one whose price depends on the prompt's length (claude-haiku-5-5).
 */
export const listPrices: Readonly<Record<string, Price>> = {
  "openai/o3": { input: 2, cachedInput: 0.5, output: 8 },
  "openai/o4-mini": { input: 1.1, cachedInput: 0.275, output: 4.4 },
  "openai/gpt-4.1": { input: 2, cachedInput: 0.5, output: 8 },
  "openai/gpt-4.1-mini": { input: 0.4, cachedInput: 0.1, output: 1.6 },
  "openai/gpt-4.1-nano": { input: 0.1, cachedInput: 0.025, output: 0.4 },
  "openai/gpt-4o": { input: 2.5, cachedInput: 1.25, output: 10 },
  "openai/gpt-4o-mini": { input: 0.15, cachedInput: 0.075, output: 0.6 },
  "openai/gpt-5": { input: 1.25, cachedInput: 0.125, output: 10 },
  "openai/gpt-5-mini": { input: 0.25, cachedInput: 0.025, output: 2 },
  "openai/gpt-5-nano": { input: 0.05, cachedInput: 0.005, output: 0.4 },
  "openai/gpt-5.4": { input: 2.5, cachedInput: 0.25, output: 15 },
  "openai/gpt-5.4-mini": { input: 0.75, cachedInput: 0.075, output: 4.5 },
  "openai/gpt-5.4-nano": { input: 0.2, cachedInput: 0.02, output: 1.25 },
  "openai/gpt-5.5": { input: 5, cachedInput: 0.5, output: 30 },
  "anthropic/claude-opus-4-1": { input: 15, cachedInput: 1.5, output: 75 },
  "anthropic/claude-sonnet-4-5": { input: 3, cachedInput: 0.3, output: 15 },
  "anthropic/claude-haiku-4-5": { input: 1, cachedInput: 0.1, output: 5 },
  "anthropic/claude-opus-4-5": { input: 5, cachedInput: 0.5, output: 25 },
  "anthropic/claude-sonnet-5": { input: 2, cachedInput: 0.2, output: 10 },
  "anthropic/claude-sonnet-5-5": { input: 2, cachedInput: 0.1, output: 10 },
  "anthropic/claude-opus-5": { input: 5, cachedInput: 0.5, output: 25 },
  "anthropic/claude-opus-5-5": { input: 4, cachedInput: 0.2, output: 20 },
};

export interface TokenUsage {
  promptTokens: number;
  /** Of the prompt's, those that the provider had cached. */
  cachedTokens: number;
  completionTokens: number;
}

export function priceOf(
  label: string,
  own: boolean,
  prices: Readonly<Record<string, Price>> | undefined,
): Price | null {
  if (prices && Object.hasOwn(prices, label)) return prices[label] ?? null;
  // A model on one's own server is paid for by the hour, not by the token.
  if (own) return { input: 0, output: 0 };
  return Object.hasOwn(listPrices, label) ? (listPrices[label] ?? null) : null;
}

export function costOf(usage: TokenUsage, price: Price): number {
  const cached = Math.min(usage.cachedTokens, usage.promptTokens);
  const fresh = usage.promptTokens - cached;
  return (
    (fresh * price.input +
      cached * (price.cachedInput ?? price.input) +
      usage.completionTokens * price.output) /
    1e6
  );
}
