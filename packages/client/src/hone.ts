import {
  deletedModelSchema,
  HoneError,
  modelInfoSchema,
  modelNamePattern,
  putModelSchema,
  requireObject,
  wrongKind,
} from "@hone/core";
import type { ChatTemplateKwargs, PutModel } from "@hone/core";
import { resolveSettings } from "./connection-settings.ts";
import type { HoneOptions } from "./connection-settings.ts";
import { refuseUnknownOptions } from "@hone/core";
import { optionalBoolean, requireOnlySignal } from "./argument-kinds.ts";
import { Model } from "./model.ts";
import { parsedOptions } from "./training/parsed-options.ts";
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
  /** False: a model that does not exist is not made; the error is `model_not_found`. @default true */
  create?: boolean | undefined;
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
      "create",
    ]);
    requireOnlySignal("hone.model()", request);
    const { name, chatTemplateKwargs, create = true, ...rest } = options;
    requireModelName("hone.model()", name);
    optionalBoolean("hone.model()", create, "create");
    const { signal } = request;
    if (!create) {
      const given = Object.keys(rest).find((key) => rest[key as keyof typeof rest] !== undefined);
      if (given !== undefined || chatTemplateKwargs !== undefined) {
        throw new HoneError(
          `hone.model(): with create: false the model is as it was made. Leave ${given ?? "chatTemplateKwargs"} out.`,
          { code: "invalid_config", param: given ?? "chatTemplateKwargs" },
        );
      }
      const path = `/v1/models/${name}/state`;
      const found = await this.#transport.json("GET", path, modelInfoSchema, { signal });
      return new Model(this.#transport, found.name, found.learnt);
    }
    const { base, lora, seed } = rest;
    const body: PutModel = {
      ...{ base, lora, seed },
      ...(chatTemplateKwargs !== undefined && { chat_template_kwargs: chatTemplateKwargs }),
    };
    parsedOptions("hone.model()", putModelSchema.safeParse(body));
    const info = await this.#transport.json("PUT", `/v1/models/${name}`, modelInfoSchema, {
      body,
      signal,
    });
    return new Model(this.#transport, info.name, info.learnt);
  }

  /** Deletes a model with all that is stored of it, also while its operations run. */
  async deleteModel(
    name: string,
    request: { signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    requireModelName("hone.deleteModel()", name);
    requireOnlySignal("hone.deleteModel()", request);
    const path = `/v1/models/${encodeURIComponent(name)}?force=true`;
    await this.#transport.json("DELETE", path, deletedModelSchema, { signal: request.signal });
  }
}

function requireModelName(where: string, name: unknown): asserts name is string {
  // A pattern would read undefined and null as those words.
  if (typeof name !== "string") throw wrongKind(where, "a text as name", name, "name");
  if (modelNamePattern.test(name)) return;
  throw new HoneError(
    `"${name.slice(0, 80)}" is no model name: use 1–64 of a-z 0-9 . _ - and begin with a letter or digit.`,
    { code: "invalid_request", param: "name" },
  );
}

/** Another installed copy of the package makes one, too. */
export function requireHone(where: string, hone: unknown): void {
  requireObject(where, hone, "a Hone as hone", "hone");
  if (!("model" in hone)) throw wrongKind(where, "a Hone as hone", hone, "hone");
}
