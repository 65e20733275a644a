import {
  HoneError,
  parseModelRef,
  policyName,
  type ResolvedScoreRequest,
  type RewardModelInfo,
  type Scores,
} from "@hone/core";
import pLimit from "p-limit";
import { type AdapterBase, baseOf, isSameBase, requireSameBase } from "../policies/base-of.ts";
import type { Checkpoints } from "../policies/checkpoints.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Model, Models } from "../policies/models.ts";
import { requireServed } from "../policies/served.ts";
import { headName } from "../ports/live-set.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { Scorer, Scoring } from "../ports/scorer.ts";

interface PolicyScorerOptions {
  /** The worker's. */
  scorer: Scorer;
  /** Names of the reward models that the operator loaded. */
  loaded: ReadonlySet<string>;
  base: AdapterBase & { maxModelLen: number };
  models: Models;
  checkpoints: Pick<Checkpoints, "path" | "readManifest" | "verifyScoring">;
  live: Pick<LivePolicies, "hold" | "release">;
  renderer: Renderer;
}

/** The renderer works on one core; a few at once keep it busy. */
const atOnce = 4;
const onlyLabel = "score";

/** Scores by loaded reward models, and by policies with a head: on the worker, whichever engines sample. */
export function createPolicyScorer(options: PolicyScorerOptions): Scoring {
  const { scorer, loaded, base, models, checkpoints, live } = options;
  // Policies whose files were compared with their hashes. A policy never changes.
  const verified = new Set<string>();

  const infoOf = (name: string): RewardModelInfo => ({
    name,
    maxTokens: base.maxModelLen,
    labels: [onlyLabel],
  });

  async function idsOf(
    model: Model,
    items: ResolvedScoreRequest["items"],
    signal: AbortSignal,
  ): Promise<number[][]> {
    const renderer = options.renderer.withTemplate(model.chatTemplateKwargs);
    const limit = pLimit(atOnce);
    return await Promise.all(
      items.map((item, place) =>
        limit(async () => {
          signal.throwIfAborted();
          try {
            return "text" in item
              ? await renderer.encode(item.text)
              : await renderer.conversation(item.messages, null);
          } catch (cause) {
            if (!HoneError.isInstance(cause) || cause.status !== 400) throw cause;
            const where = `items[${place}]`;
            throw new HoneError(`${where}: ${cause.message}`, {
              code: cause.code,
              param: cause.param ? `${where}.${cause.param}` : where,
              cause,
            });
          }
        }),
      ),
    );
  }

  async function scored(
    model: Model,
    step: number,
    request: ResolvedScoreRequest,
    signal: AbortSignal,
  ): Promise<Scores> {
    const { label, tooLong } = request;
    if (label !== undefined && label !== null && label !== onlyLabel) {
      throw new HoneError(
        `"${request.model}" has the one label "${onlyLabel}". Leave the label out.`,
        { code: "invalid_request", param: "label" },
      );
    }
    const policy = policyName(model.name, step);
    if (!verified.has(policy)) {
      await requireHead(model, step);
      await checkpoints.verifyScoring(model.name, step);
      verified.add(policy);
    }
    const most = base.maxModelLen;
    const whole = await idsOf(model, request.items, signal);
    const tooLongAt = whole.findIndex(({ length }) => length > most);
    if (tooLongAt >= 0 && tooLong === "error") {
      throw new HoneError(
        `items[${tooLongAt}] has ${whole[tooLongAt]?.length} tokens, and "${request.model}" reads ${most}. ` +
          "Shorten it, or choose what becomes of an item that is too long.",
        { code: "context_length_exceeded", param: `items[${tooLongAt}]` },
      );
    }
    const places = [...whole.keys()].filter(
      (at) => tooLong !== "null" || (whole[at]?.length ?? 0) <= most,
    );
    // The end is kept: that is where the answer is, and where the head reads.
    const asked = places.map((at) => (whole[at] ?? []).slice(-most));
    const path = checkpoints.path(model.name, step);
    const found = asked.length > 0 ? await scorer.scoreIds(path, asked, signal) : [];
    const scores = new Map(places.map((at, nth) => [at, found[nth] ?? null]));
    return {
      object: "hone.scores",
      model: infoOf(policy),
      data: whole.map(({ length }, at) => {
        const score = scores.get(at) ?? null;
        return { score, tokens: length, truncated: score !== null && length > most };
      }),
    };
  }

  async function hasHead(model: string, step: number): Promise<boolean> {
    const manifest = await checkpoints.readManifest(model, step);
    return manifest !== null && headName in manifest.files;
  }

  async function requireHead({ name }: Model, step: number): Promise<void> {
    if (await hasHead(name, step)) return;
    throw new HoneError(
      `${policyName(name, step)} gives no scores: no head was trained beside its adapter. Train one with ` +
        "`model.bradleyTerry(pairs)`, name a policy that has one, or a reward model of the server.",
      { code: "invalid_request", param: "model" },
    );
  }

  return {
    async list() {
      const trained: RewardModelInfo[] = [];
      for (const model of models.list()) {
        const { name, served } = model;
        const asked = isSameBase(baseOf(model), base) && !loaded.has(name);
        if (asked && served > 0 && (await hasHead(name, served))) trained.push(infoOf(name));
      }
      return [...(await scorer.list()), ...trained];
    },

    async score(request, signal) {
      const ref = parseModelRef(request.model);
      const model = ref && models.find(ref.model);
      if (loaded.has(request.model) || !ref || !model) return await scorer.score(request, signal);
      requireSameBase(model, base);
      const step = ref.step ?? Math.max(model.served, 0);
      requireServed(models, model.name, step, "model");
      const policy = policyName(model.name, step);
      // Retention leaves what is held.
      live.hold(policy);
      try {
        return await scored(model, step, request, signal);
      } finally {
        live.release(policy);
      }
    },
  };
}
