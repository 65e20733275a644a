import {
  type ChatTemplateKwargs,
  HoneError,
  type ModelInfo,
  parseModelRef,
  policyName,
  type putModelSchema,
} from "@hone/core";
import type { LimitFunction } from "p-limit";
import type { z } from "zod";
import type { Base } from "../operations/context.ts";
import type { Trainer } from "../ports/trainer.ts";
import { baseInWords, baseOf, isSameBase, precisionOf } from "../policies/base-of.ts";
import type { Checkpoints } from "../policies/checkpoints.ts";
import { canonicalJson } from "../store/canonical.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Model, Models } from "../policies/models.ts";

type PutModel = z.output<typeof putModelSchema>;

export interface ModelService {
  /** Creates the model with its policy 0, or finds it. */
  put(name: string, body: PutModel): Promise<ModelInfo>;
  info(name: string): ModelInfo;
  list(): ModelInfo[];
}

const defaultLora = { r: 16, alpha: 32 };

export function createModelService(options: {
  models: Models;
  checkpoints: Checkpoints;
  live: LivePolicies;
  trainer: Trainer;
  /** Ids of the operations that have not ended. */
  unfinished: (model: string) => string[];
  base: Pick<Base, "name" | "maxModelLen" | "dtype" | "quantize" | "sleeps">;
  /** Throws `invalid_request` for one that the base's renderer does not know. */
  checkTemplate: (kwargs: ChatTemplateKwargs) => Promise<void>;
  /** Two requests for the same new model must not make it twice. */
  serially: LimitFunction;
}): ModelService {
  const { models, checkpoints, live, trainer, unfinished, base, checkTemplate, serially } = options;

  function infoOf(model: Model): ModelInfo {
    return {
      name: model.name,
      object: "hone.model",
      base: model.base,
      lora: model.lora,
      chat_template_kwargs: model.chatTemplateKwargs,
      learnt: model.learnt,
      served: model.served,
      cursor: model.cursor,
      operations: unfinished(model.name),
      live: live.usage(model.name),
      maxModelLen: base.maxModelLen,
      ...(base.sleeps && { engineSleeps: true }),
      createdAt: model.createdAt,
    };
  }

  /** Refuses a model with the base's name, because requests for the base would be answered by the model. */
  function refuseNameOfBase(name: string): void {
    if (parseModelRef(base.name)?.model !== name) return;
    throw new HoneError(
      `"${name}" is the name of the base that this server serves, "${base.name}": calls for the one would be answered by the other. Choose another name for the model.`,
      { code: "invalid_request", param: "name" },
    );
  }

  async function create(name: string, body: PutModel): Promise<Model> {
    const lora = { ...defaultLora, ...body.lora };
    const seed = body.seed ?? 0;
    const chatTemplateKwargs = wantedTemplate(body) ?? null;
    if (chatTemplateKwargs) await checkTemplate(chatTemplateKwargs);
    const operationId = `create-${name}`;
    // A folder without a row was left by a server that died in between. It can be written again: the same seed gives
    // the same bytes.
    await checkpoints.remove(name, 0);
    const staging = await checkpoints.stage(name, operationId, 0);
    try {
      const files = await trainer.initAdapter({ staging, ...lora, seed });
      await checkpoints.commit(
        staging,
        {
          model: name,
          step: 0,
          parent: null,
          operationId,
          base: base.name,
          precision: precisionOf(base),
          lora,
          seed,
          cursor: null,
          metrics: {},
          probe: await trainer.probe(staging),
        },
        files,
      );
      return await models.create(
        { name, base: base.name, quantize: base.quantize ?? null, lora, seed, chatTemplateKwargs },
        operationId,
      );
    } finally {
      await checkpoints.discard(staging);
    }
  }

  return {
    put: (name, body) =>
      serially(async () => {
        if (models.isDeleted(name)) throw nameTaken(name);
        let existing = models.find(name);
        if (!existing) refuseNameOfBase(name);
        const asserted = body.base ?? existing?.base ?? base.name;
        if (asserted !== base.name || (existing && existing.base !== base.name)) {
          const wanted = asserted === base.name ? (existing?.base ?? asserted) : asserted;
          throw new HoneError(
            `The model "${name}" is wanted on the base "${wanted}", but this server serves "${base.name}". ` +
              "Start a server with that base, or leave `base` out.",
            { code: "base_mismatch", param: "base" },
          );
        }
        if (existing && !isSameBase(baseOf(existing), base)) {
          throw new HoneError(
            `The model "${name}" was trained on the base ${baseInWords(baseOf(existing))}, but this server holds ${baseInWords(base)}. ` +
              "Start the server as it was then, or choose another model name.",
            { code: "base_mismatch", param: "base" },
          );
        }
        if (existing && !isSame(existing, body)) {
          if (existing.served >= 0 || existing.learnt > 0) throw otherOptions(existing, body);
          // Most likely the engine refused the adapter's shape and would refuse it again, so the name becomes free
          // for another shape. The row goes first: a crash must not leave it beside the folder of another shape.
          await models.remove(name);
          await live.unload(policyName(name, 0));
          existing = null;
        }
        const model = existing ?? (await create(name, body));
        // An earlier request may have made the model, and the engine failed on it then. It is tried again here.
        if (model.served < 0) await live.publish(name);
        return infoOf(model);
      }),

    info: (name) => infoOf(models.require(name)),
    list: () => models.list().map(infoOf),
  };
}

function nameTaken(name: string): HoneError {
  return new HoneError(
    `A model "${name}" was deleted on this server, and a name never means other weights than it did. Choose another name, such as "${name.slice(0, 60)}-2".`,
    { code: "model_deleted", param: "model" },
  );
}

/** Null and an object without entries mean the same. Undefined means that the request does not say. */
function wantedTemplate(body: PutModel): ChatTemplateKwargs | null | undefined {
  const given = body.chat_template_kwargs;
  return given && Object.keys(given).length === 0 ? null : given;
}

function isSameTemplate(model: Model, body: PutModel): boolean {
  const wanted = wantedTemplate(body);
  return wanted === undefined || canonicalJson(wanted) === canonicalJson(model.chatTemplateKwargs);
}

function wantedOptions(model: Model, body: PutModel): { r: number; alpha: number; seed: number } {
  const lora = body.lora ? { ...defaultLora, ...body.lora } : model.lora;
  return { ...lora, seed: body.seed ?? model.seed };
}

function isSame(model: Model, body: PutModel): boolean {
  const { r, alpha, seed } = wantedOptions(model, body);
  const isSameShape = r === model.lora.r && alpha === model.lora.alpha && seed === model.seed;
  return isSameShape && isSameTemplate(model, body);
}

function otherOptions(model: Model, body: PutModel): HoneError {
  if (!isSameTemplate(model, body)) {
    return new HoneError(
      `The model "${model.name}" has chat_template_kwargs ${JSON.stringify(model.chatTemplateKwargs)}; the request says ` +
        `${JSON.stringify(body.chat_template_kwargs)}. Leave them out, or choose another name.`,
      { code: "model_mismatch", param: "chat_template_kwargs" },
    );
  }
  const { r, alpha, seed } = wantedOptions(model, body);
  return new HoneError(
    `The model "${model.name}" has LoRA r ${model.lora.r}, alpha ${model.lora.alpha}, seed ${model.seed}; ` +
      `the request says r ${r}, alpha ${alpha}, seed ${seed}. Leave them out, or choose another name.`,
    { code: "model_mismatch", param: body.lora ? "lora" : "seed" },
  );
}
