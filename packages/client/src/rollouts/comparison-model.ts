import { hideKey, HoneError } from "@hone/core";
import { patientRequest } from "@hone/transport";
import type { Fetch } from "@hone/transport";
import { refuseUnknownOptions } from "@hone/core";
import { optionalFunction, requireText } from "../argument-kinds.ts";

export interface ComparisonModelOptions {
  /** URL of any OpenAI-compatible API, including its `/v1`. */
  baseURL: string;
  apiKey: string;
  /** What the provider calls the model. */
  model: string;
  /** @default globalThis.fetch */
  fetch?: Fetch | undefined;
}

/**
 * A model of another API, to compare with. `gather` runs the same rollout function on it. It is never trained, and
 * its key goes to its own API and nowhere else.
 */
export class ComparisonModel {
  readonly name: string;
  readonly baseURL: string;
  readonly apiKey: string;
  readonly fetch: Fetch;

  constructor(options: ComparisonModelOptions) {
    refuseUnknownOptions("ComparisonModel", options, ["baseURL", "apiKey", "model", "fetch"]);
    requireText("ComparisonModel", options.model, "model");
    requireText("ComparisonModel", options.apiKey, "apiKey");
    optionalFunction("ComparisonModel", options.fetch, "fetch");
    if (!URL.canParse(options.baseURL)) {
      throw new HoneError(
        `"${options.baseURL}" is not a URL. Give the API's, such as https://api.openai.com/v1.`,
        { code: "invalid_config", param: "baseURL" },
      );
    }
    const { username, password } = new URL(options.baseURL);
    if (username || password) {
      throw new HoneError(
        "baseURL has a user or a password in it. Leave them out, and pass apiKey.",
        { code: "invalid_config", param: "baseURL" },
      );
    }
    this.name = options.model;
    this.baseURL = options.baseURL.replace(/\/+$/, "");
    this.apiKey = options.apiKey;
    this.fetch =
      options.fetch ?? ((input, init) => globalThis.fetch(input, patientRequest(init ?? {})));
    hideKey(this);
  }
}
