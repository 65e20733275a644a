import { ComparisonModel } from "@hone/client";

/** OpenAI-compatible APIs, and the variable that holds the key. */
const providers: Readonly<Record<string, { baseURL: string; key: string }>> = {
  openai: { baseURL: "https://api.openai.com/v1", key: "OPENAI_API_KEY" },
  openrouter: { baseURL: "https://openrouter.ai/api/v1", key: "OPENROUTER_API_KEY" },
};

/** `openai/gpt-4o-mini`, `openrouter/qwen/qwen3-8b`; the key comes from the environment. */
export function comparisonModel(
  name: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): ComparisonModel {
  const slash = name.indexOf("/");
  const provider = providers[name.slice(0, slash)];
  const model = name.slice(slash + 1);
  if (slash < 1 || !provider || !model) {
    throw new Error(`"${name}" names no model: use ${Object.keys(providers).join("/… or ")}/….`);
  }
  const apiKey = environment[provider.key];
  if (!apiKey) throw new Error(`Set ${provider.key} to compare with ${name}.`);
  return new ComparisonModel({ baseURL: provider.baseURL, apiKey, model });
}
