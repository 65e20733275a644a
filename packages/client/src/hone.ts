import { HoneError, modelInfoSchema, modelNamePattern, requireObject, wrongKind } from "@hone/core";
import type { ChatTemplateKwargs, PutModel } from "@hone/core";
import { resolveSettings } from "./connection-settings.ts";
import type { HoneOptions } from "./connection-settings.ts";
import { refuseUnknownOptions } from "@hone/core";
import { requireSignal } from "./argument-kinds.ts";
import { Model } from "./model.ts";
import { Transport } from "@hone/transport";

export interface ModelOptions extends Omit<PutModel, "chat_template_kwargs"> {
  /** 1 to 64 characters of a-z, 0-9, ".", "_" and "-". */
  name: string;
  /**
   * Arguments of the base's chat template, such as `{ enable_thinking: false }`, for all chats of the model.
   * An argument that the base does not know is refused. If the model exists with other arguments, the error is
   * `model_mismatch`. @default those that the model was made with; for a new model none
   */
  chatTemplateKwargs?: ChatTemplateKwargs | undefined;
}

/** A Hone server. */
export class Hone {
  /** The OpenAI-compatible URL, for clients that take one; ends in `/v1`. */
  readonly baseURL: string;
  readonly #transport: Transport;

  constructor(options: HoneOptions = {}) {
    refuseUnknownOptions("new Hone()", options, [
      "baseURL",
      "apiKey",
      "fetch",
      "maxRetries",
      "timeoutMs",
    ]);
    const settings = resolveSettings(options);
    this.#transport = new Transport(settings);
    this.baseURL = `${settings.serverURL}/v1`;
  }

  /** Gives the model of this name and makes it if there is none. Throws if `base` is not what the server serves. */
  async model(
    options: ModelOptions,
    request: { signal?: AbortSignal | undefined } = {},
  ): Promise<Model> {
    requireObject("hone.model()", options, 'an object such as { name: "my-agent" }', "options");
    refuseUnknownOptions("hone.model()", options, [
      "name",
      "base",
      "lora",
      "seed",
      "chatTemplateKwargs",
    ]);
    requireSignal("hone.model()", request);
    const { name, chatTemplateKwargs, ...rest } = options;
    // A pattern would read undefined and null as those words.
    if (typeof name !== "string") {
      throw wrongKind("hone.model()", "a text as name", name, "name");
    }
    if (!modelNamePattern.test(name)) {
      throw new HoneError(
        `"${name.slice(0, 80)}" is no model name: use 1–64 of a-z 0-9 . _ - and begin with a letter or digit.`,
        { code: "invalid_request", param: "name" },
      );
    }
    const body: PutModel = {
      ...rest,
      ...(chatTemplateKwargs !== undefined && { chat_template_kwargs: chatTemplateKwargs }),
    };
    const info = await this.#transport.json("PUT", `/v1/models/${name}`, modelInfoSchema, {
      body,
      signal: request.signal,
    });
    return new Model(this.#transport, info.name, info.learnt);
  }
}
