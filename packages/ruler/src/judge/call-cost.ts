import type { JudgeBudget, Settle } from "./budget.ts";
import type { JudgeMessage, JudgeReply } from "./judge-reply.ts";
import type { JudgeTarget } from "./judge-target.ts";
import { costOf } from "./prices.ts";
import type { Price } from "./prices.ts";

/** Tokens that an answer may have where a budget is kept and the user's parameters set no limit. */
const answerTokens = 16_000;

/** The limit that the parameters set; null where they set none. */
function limitOf(parameters: Readonly<Record<string, unknown>>): number | null {
  const limits = ["max_tokens", "max_completion_tokens"].flatMap((name) => {
    const limit = parameters[name];
    return typeof limit === "number" && limit > 0 ? [limit] : [];
  });
  return limits.length > 0 ? Math.max(...limits) : null;
}

/** The parameters of a call whose cost a budget has to know beforehand: they bound the answer. */
export function boundedParameters(
  parameters: Readonly<Record<string, unknown>>,
  target: JudgeTarget,
): Readonly<Record<string, unknown>> {
  return limitOf(parameters) === null
    ? { ...parameters, [target.answerLimit]: answerTokens }
    : parameters;
}

/** How a request takes from the budget the most that it may cost. */
export function reservation(
  budget: JudgeBudget,
  price: Price,
  request: {
    messages: readonly JudgeMessage[];
    schema: Readonly<Record<string, unknown>>;
    parameters: Readonly<Record<string, unknown>>;
    countTokens: (text: string) => number;
  },
): () => Promise<Settle> {
  const { messages, schema, parameters, countTokens } = request;
  const texts = [...messages.map(({ content }) => content), JSON.stringify(schema)];
  const mostUsd = costOf(
    {
      promptTokens: texts.reduce((sum, text) => sum + countTokens(text), 0),
      cachedTokens: 0,
      completionTokens: limitOf(parameters) ?? answerTokens,
    },
    price,
  );
  return () => budget.reserve(mostUsd);
}

/** What the provider says, or what its usage comes to; null where it tells neither. */
export function replyCost({ costUsd, usage }: JudgeReply, price: Price | null): number | null {
  if (costUsd !== null || !price) return costUsd;
  if (usage) return costOf(usage, price);
  return price.input === 0 && price.output === 0 ? 0 : null;
}
