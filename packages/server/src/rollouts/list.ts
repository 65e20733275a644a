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
import type { SqlValue, Statement, Store } from "../store/store.ts";
import { readRollout, type RolloutRecord } from "./records.ts";
import type { Rollouts } from "./rollouts.ts";

/** Reads rollouts for people: the lists of a model, and the completions of one rollout. */
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

  function summaryOf(record: RolloutRecord, counted?: number): RolloutSummary {
    return {
      ...rollouts.describe(record, counted),
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
      // The renderer is away. The ids are shown all the same.
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
      const { sql, args } = selectPage(keyId, model, query);
      const rows = (await store.query(sql, ...args)) as { id: string; completions: number }[];
      // Memory is newer than the database for rollouts that are open or whose end is not written yet.
      const data = rows.slice(0, limit).map((row) => {
        const known = rollouts.inMemory(row.id);
        return known ? summaryOf(known) : summaryOf(readRollout(row), row.completions);
      });
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

/** The index for each filter. The first filter that a query has decides: the rows that it finds are few enough to read. */
const filters = [
  { key: "operation", column: "trained_by", index: "rollouts_by_operation" },
  { key: "group", column: "group_id", index: "rollouts_by_group" },
  { key: "step", column: "policy_step", index: "rollouts_by_step" },
  { key: "status", column: "status", index: "rollouts_by_status" },
  { key: "mode", column: "mode", index: "rollouts_by_mode" },
] as const;

/** A page of a list. Scenarios, metadata and logs may be large, so only a single rollout shows them. */
function selectPage(keyId: string, model: string, query: ListRollouts): Statement {
  const { limit, after } = query;
  const given = filters.filter(({ key }) => query[key] !== undefined);
  const where = ["model = ?", ...given.map(({ column }) => `${column} = ?`), "key_id = ?"];
  const args: SqlValue[] = [model, ...given.map(({ key }) => query[key] ?? null), keyId];
  if (after !== undefined) {
    where.push("(created_at, rowid) < (SELECT created_at, rowid FROM rollouts WHERE id = ?)");
    args.push(after);
  }
  return {
    sql: `WITH page AS MATERIALIZED (
            SELECT rowid AS place FROM rollouts INDEXED BY ${given[0]?.index ?? "rollouts_by_model"}
            WHERE ${where.join(" AND ")} ORDER BY created_at DESC, rowid DESC LIMIT ?)
          SELECT id, key_id, model, mode, status, group_id, policy_step, reward, metrics, error, trained_by,
            created_at, closed_at, '' AS body_sha, NULL AS scenario, NULL AS step, '{}' AS metadata, '[]' AS logs,
            (SELECT count(*) FROM completions WHERE rollout_id = rollouts.id) AS completions
          FROM page CROSS JOIN rollouts ON rollouts.rowid = place
          ORDER BY created_at DESC, rollouts.rowid DESC`,
    args: [...args, limit + 1],
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
