import { ComparisonModel } from "@hone/client";

/** OpenAI-compatible APIs, and the variable that holds the key. */
const providers: Readonly<Record<string, { baseURL: string; key: string }>> = {
  openai: { baseURL: "https://api.openai.com/v1", key: "OPENAI_API_KEY" },
  openrouter: { baseURL: "https://openrouter.ai/api/v1", key: "OPENROUTER_API_KEY" },
};

/** Another model that plays the verdict's games. */
export interface OtherModel {
  /** As the user named it: two APIs may serve models of one name. */
  label: string;
  model: ComparisonModel;
  /** Tokens that an answer of it may have. */
  answerTokens: number;
}

export interface OtherModelSettings {
  /** The variable that holds the key of an API that is named by its URL. */
  keyVariable: string;
  answerTokens: number;
  environment?: Readonly<Record<string, string | undefined>>;
}

/** `none` leaves out those before it, such as those that a run began with; a name is taken once. */
export function otherModels(names: readonly string[], settings: OtherModelSettings): OtherModel[] {
  const last = names.lastIndexOf("none");
  return [...new Set(names.slice(last + 1))].map((name) => otherModel(name, settings));
}

/**
 * `openai/gpt-4o-mini`, `openrouter/qwen/qwen3-8b`, or any OpenAI-compatible API by its URL:
 * `http://host:port/v1#model`. Keys come from the environment alone.
 */
export function otherModel(name: string, settings: OtherModelSettings): OtherModel {
  const { answerTokens } = settings;
  return { label: name, model: comparisonModel(name, settings), answerTokens };
}

function comparisonModel(
  name: string,
  { keyVariable, environment = process.env }: OtherModelSettings,
): ComparisonModel {
  if (/^https?:\/\//.test(name)) {
    const { baseURL, model } = readURL(name);
    // A server of one's own often wants none; the SDK wants one to send.
    return new ComparisonModel({ baseURL, apiKey: environment[keyVariable] || "none", model });
  }
  const slash = name.indexOf("/");
  const prefix = name.slice(0, Math.max(slash, 0));
  const provider = Object.hasOwn(providers, prefix) ? providers[prefix] : undefined;
  const model = name.slice(slash + 1);
  if (!provider || !model) {
    throw new Error(
      `"${name}" names no model: use ${Object.keys(providers).join("/…, ")}/… or http://host:port/v1#model.`,
    );
  }
  const apiKey = environment[provider.key];
  if (!apiKey) throw new Error(`Set ${provider.key} to compare with ${name}.`);
  return new ComparisonModel({ baseURL: provider.baseURL, apiKey, model });
}

function readURL(name: string): { baseURL: string; model: string } {
  const hash = name.indexOf("#");
  const baseURL = hash < 0 ? name : name.slice(0, hash);
  const model = hash < 0 ? "" : name.slice(hash + 1);
  const url = URL.canParse(baseURL) ? new URL(baseURL) : null;
  // Not repeated in the message: it may hold a key.
  if (url?.username || url?.password || url?.search) {
    throw new Error("A URL to compare with holds no key: the key comes from the environment.");
  }
  if (url && model) return { baseURL, model };
  throw new Error(`"${name}" names no model: write http://host:port/v1#model.`);
}
