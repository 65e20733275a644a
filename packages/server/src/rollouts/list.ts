import {
  type CompletionList,
  type CompletionRecord,
  HoneError,
  type ListRollouts,
  type RolloutList,
  type RolloutSummary,
} from "@hone/core";
import type { Logger } from "pino";
import type { StoredLedger } from "../ledger/ledger.ts";
import type { Models } from "../policies/models.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import type { Store } from "../store/store.ts";
import type { RolloutRecord } from "./records.ts";
import type { Rollouts } from "./rollouts.ts";

/** What people look at: rollouts by their model, and what the ledger holds of one. */
export interface RolloutReader {
  list(keyId: string, model: string, query: ListRollouts): Promise<RolloutList>;
  completions(keyId: string, id: string): Promise<CompletionList>;
}

export function createRolloutReader(options: {
  store: Store;
  models: Models;
  ledger: StoredLedger;
  rollouts: Rollouts;
  /** The text of single tokens. */
  tokens: (ids: readonly number[]) => Promise<string[]>;
  log: Logger;
}): RolloutReader {
  const { store, models, ledger, rollouts } = options;

  function summaryOf(record: RolloutRecord): RolloutSummary {
    return {
      ...rollouts.info(record.keyId, record.id),
      metrics: record.metrics,
      error: record.error,
      trainedBy: record.trainedBy,
      closedAt: record.closedAt,
    };
  }

  async function textsOf(
    completions: readonly LedgerCompletion[],
  ): Promise<Map<number, string> | null> {
    const ids = [...new Set(completions.flatMap(({ sampled }) => [...sampled]))];
    if (ids.length === 0) return new Map();
    try {
      const texts = await options.tokens(ids);
      return new Map(ids.map((id, i) => [id, texts[i] ?? ""]));
    } catch (error) {
      // The ids say the same; they are shown also while the renderer is away.
      options.log.warn({ err: error }, "the texts of tokens cannot be had");
      return null;
    }
  }

  return {
    async list(keyId, model, query) {
      models.require(model);
      await store.flush();
      const { limit, after } = query;
      const last = after === undefined ? null : rollouts.require(keyId, after);
      if (last && last.model !== model) {
        throw new HoneError(`The rollout "${last.id}" is of the model "${last.model}".`, {
          code: "model_mismatch",
          param: "after",
        });
      }
      const filter = [
        query.mode ?? null,
        query.status ?? null,
        query.step ?? null,
        query.operation ?? null,
        query.group ?? null,
      ];
      const rows = store.all(
        `SELECT id FROM rollouts
         WHERE model = ? AND key_id = ?
           AND (? IS NULL OR (created_at, rowid) < (SELECT created_at, rowid FROM rollouts WHERE id = ?))
           AND (? IS NULL OR mode = ?) AND (? IS NULL OR status = ?)
           AND (? IS NULL OR policy_step = ?) AND (? IS NULL OR trained_by = ?)
           AND (? IS NULL OR group_id = ?)
         ORDER BY created_at DESC, rowid DESC LIMIT ?`,
        model,
        keyId,
        after ?? null,
        after ?? null,
        ...filter.flatMap((value) => [value, value]),
        limit + 1,
      ) as { id: string }[];
      const data = rows.slice(0, limit).map(({ id }) => summaryOf(rollouts.require(keyId, id)));
      return { object: "list", data, has_more: rows.length > limit };
    },

    async completions(keyId, id) {
      const record = rollouts.require(keyId, id);
      const completions = await ledger.list(id);
      const texts = await textsOf(completions);
      return {
        object: "list",
        rollout: summaryOf(record),
        data: completions.map((completion) => recordOf(completion, texts)),
        has_more: false,
      };
    },
  };
}

function recordOf(
  completion: LedgerCompletion,
  texts: ReadonlyMap<number, string> | null,
): CompletionRecord {
  const { rolloutId: _, promptSuffix, sampled, logprobs, messages, tools, ...rest } = completion;
  return {
    ...rest,
    object: "hone.completion",
    messages: [...messages],
    tools: tools ? [...tools] : null,
    promptIds: [...promptSuffix],
    sampledIds: [...sampled],
    logprobs: [...logprobs],
    tokens: texts ? [...sampled].map((id) => texts.get(id) ?? "") : null,
  };
}
