import { type ChatTemplateKwargs, HoneError } from "@hone/core";
import type { Clock } from "../ports/clock.ts";
import { toJson } from "../store/json.ts";
import type { Quantize } from "../ports/trainer.ts";
import type { Statement, Store } from "../store/store.ts";

export interface Model {
  name: string;
  base: string;
  quantize: Quantize | null;
  lora: { r: number; alpha: number };
  seed: number;
  chatTemplateKwargs: ChatTemplateKwargs | null;
  learnt: number;
  /** −1 until policy 0 is first served. */
  served: number;
  cursor: unknown;
  createdAt: number;
}

export interface PolicyRecord {
  model: string;
  step: number;
  operationId: string;
  createdAt: number;
  /** A pinned policy is never removed. */
  pinned: boolean;
  /** When retention removed its folder; null while it is there. The name is never used again. */
  removedAt: number | null;
}

/** The models of this data directory. Memory is the authority: nobody else writes the database. */
export interface Models {
  find(name: string): Model | null;
  /** Like `find`, but a model that does not exist is an error. */
  require(name: string): Model;
  list(): Model[];
  policies(name: string): PolicyRecord[];
  policy(name: string, step: number): PolicyRecord | null;
  /** Makes policy 0, and with it the model. */
  create(
    model: Omit<Model, "learnt" | "served" | "cursor" | "createdAt">,
    operationId: string,
  ): Promise<Model>;
  /** Only a model that was never served: nothing was sampled from it, and the name is free. */
  remove(name: string): Promise<void>;
  /**
   * Removes the model from memory at once, and from the database when it resolves, in one transaction with
   * `also`. Its name stays taken, because it must never mean other weights.
   */
  delete(name: string, also: readonly Statement[]): Promise<void>;
  isDeleted(name: string): boolean;
  /** Deleted models of which the database may still hold rollouts or operations. */
  uncleared(): string[];
  setCleared(name: string): Promise<void>;
  /** Makes `step` the newest learnt policy, in one transaction with `also`. */
  commitStep(
    name: string,
    step: number,
    operationId: string,
    cursor: unknown,
    also: readonly Statement[],
  ): Promise<void>;
  setCursor(name: string, cursor: unknown, also: readonly Statement[]): Promise<void>;
  setServed(name: string, step: number): Promise<void>;
  setPinned(name: string, step: number, pinned: boolean): Promise<void>;
  /**
   * Takes effect in memory at once, so that nobody begins to use the policy. The folder may be removed when it
   * resolves.
   */
  markRemoved(name: string, step: number): Promise<void>;
}

interface ModelRow {
  name: string;
  base: string;
  quantize: Quantize | null;
  lora_r: number;
  lora_alpha: number;
  seed: number;
  chat_template_kwargs: string | null;
  learnt: number;
  served: number;
  cursor: string | null;
  created_at: number;
}

interface PolicyRow {
  model: string;
  step: number;
  operation_id: string;
  created_at: number;
  pinned: number;
  removed_at: number | null;
}

interface DeletedRow {
  name: string;
  cleared_at: number | null;
}

const insertPolicy =
  "INSERT INTO policies (model, step, operation_id, created_at) VALUES (?, ?, ?, ?)";

export function createModels(store: Store, clock: Clock): Models {
  const models = new Map<string, Model>();
  const rows = store.all("SELECT * FROM models ORDER BY created_at, name") as ModelRow[];
  for (const row of rows) {
    models.set(row.name, {
      name: row.name,
      base: row.base,
      quantize: row.quantize,
      lora: { r: row.lora_r, alpha: row.lora_alpha },
      seed: row.seed,
      chatTemplateKwargs:
        row.chat_template_kwargs === null
          ? null
          : (JSON.parse(row.chat_template_kwargs) as ChatTemplateKwargs),
      learnt: row.learnt,
      served: row.served,
      cursor: row.cursor === null ? null : (JSON.parse(row.cursor) as unknown),
      createdAt: row.created_at,
    });
  }

  const deleted = new Set<string>();
  const uncleared = new Set<string>();
  for (const row of store.all("SELECT name, cleared_at FROM deleted_models") as DeletedRow[]) {
    deleted.add(row.name);
    if (row.cleared_at === null) uncleared.add(row.name);
  }

  function require(name: string): Model {
    const model = models.get(name);
    if (model) return model;
    if (deleted.has(name)) {
      throw new HoneError(`The model "${name}" was deleted. Its name is not used again.`, {
        code: "model_not_found",
        param: "model",
      });
    }
    throw new HoneError(
      `There is no model "${name}". Create it with PUT /v1/models/${name} (\`hone.model({ name: "${name}" })\`).`,
      { code: "model_not_found", param: "model" },
    );
  }

  const policies = new Map<string, PolicyRecord[]>();
  for (const row of store.all("SELECT * FROM policies ORDER BY model, step") as PolicyRow[]) {
    add({
      model: row.model,
      step: row.step,
      operationId: row.operation_id,
      createdAt: row.created_at,
      pinned: row.pinned === 1,
      removedAt: row.removed_at,
    });
  }

  function add(policy: PolicyRecord): void {
    const known = policies.get(policy.model);
    if (known) known.push(policy);
    else policies.set(policy.model, [policy]);
  }

  return {
    find: (name) => models.get(name) ?? null,
    require,
    list: () => [...models.values()],
    policies: (name) => [...(policies.get(name) ?? [])],
    // Steps have no gaps, so policy N has the index N.
    policy: (name, step) => policies.get(name)?.[step] ?? null,

    async create(given, operationId) {
      const model: Model = { ...given, learnt: 0, served: -1, cursor: null, createdAt: clock() };
      await store.write([
        {
          sql: `INSERT INTO models (name, base, quantize, lora_r, lora_alpha, seed, chat_template_kwargs, learnt, served, cursor, created_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, 0, -1, NULL, ?)`,
          args: [
            model.name,
            model.base,
            model.quantize,
            model.lora.r,
            model.lora.alpha,
            model.seed,
            model.chatTemplateKwargs && JSON.stringify(model.chatTemplateKwargs),
            model.createdAt,
          ],
        },
        { sql: insertPolicy, args: [model.name, 0, operationId, model.createdAt] },
      ]);
      models.set(model.name, model);
      add(policyOf(model.name, 0, operationId, model.createdAt));
      return model;
    },

    async remove(name) {
      await store.write([
        { sql: "DELETE FROM policies WHERE model = ?", args: [name] },
        { sql: "DELETE FROM models WHERE name = ?", args: [name] },
      ]);
      models.delete(name);
      policies.delete(name);
    },

    async delete(name, also) {
      const model = require(name);
      const steps = policies.get(name) ?? [];
      models.delete(name);
      policies.delete(name);
      deleted.add(name);
      try {
        await store.write([
          {
            sql: "INSERT INTO deleted_models (name, deleted_at) VALUES (?, ?)",
            args: [name, clock()],
          },
          { sql: "DELETE FROM policies WHERE model = ?", args: [name], long: true },
          { sql: "DELETE FROM models WHERE name = ?", args: [name] },
          ...also,
        ]);
      } catch (error) {
        models.set(name, model);
        policies.set(name, steps);
        deleted.delete(name);
        throw error;
      }
      uncleared.add(name);
    },

    isDeleted: (name) => deleted.has(name),
    uncleared: () => [...uncleared],

    async setCleared(name) {
      await store.write([
        { sql: "DELETE FROM evaluations WHERE model = ?", args: [name], long: true },
        {
          sql: "UPDATE deleted_models SET cleared_at = ? WHERE name = ?",
          args: [clock(), name],
        },
      ]);
      uncleared.delete(name);
    },

    async commitStep(name, step, operationId, cursor, also) {
      const model = require(name);
      const createdAt = clock();
      await store.write([
        {
          sql: "UPDATE models SET learnt = ?, cursor = ? WHERE name = ?",
          args: [step, toJson(cursor), name],
        },
        { sql: insertPolicy, args: [name, step, operationId, createdAt] },
        ...also,
      ]);
      add(policyOf(name, step, operationId, createdAt));
      model.learnt = step;
      model.cursor = cursor ?? null;
    },

    async setCursor(name, cursor, also) {
      const model = require(name);
      await store.write([
        { sql: "UPDATE models SET cursor = ? WHERE name = ?", args: [toJson(cursor), name] },
        ...also,
      ]);
      model.cursor = cursor ?? null;
    },

    async setServed(name, step) {
      const model = require(name);
      await store.write([
        { sql: "UPDATE models SET served = ? WHERE name = ?", args: [step, name] },
      ]);
      model.served = step;
    },

    async setPinned(name, step, pinned) {
      const policy = policies.get(name)?.[step];
      if (!policy || policy.pinned === pinned) return;
      // Memory changes first, so that retention does not remove the policy while the pin is being written.
      policy.pinned = pinned;
      try {
        await store.write([
          {
            sql: "UPDATE policies SET pinned = ? WHERE model = ? AND step = ?",
            args: [pinned ? 1 : 0, name, step],
          },
        ]);
      } catch (error) {
        policy.pinned = !pinned;
        throw error;
      }
    },

    async markRemoved(name, step) {
      const policy = policies.get(name)?.[step];
      if (!policy || policy.removedAt !== null) return;
      policy.removedAt = clock();
      try {
        await store.write([
          {
            sql: "UPDATE policies SET removed_at = ? WHERE model = ? AND step = ?",
            args: [policy.removedAt, name, step],
          },
        ]);
      } catch (error) {
        policy.removedAt = null;
        throw error;
      }
    },
  };
}

function policyOf(
  model: string,
  step: number,
  operationId: string,
  createdAt: number,
): PolicyRecord {
  return { model, step, operationId, createdAt, pinned: false, removedAt: null };
}
