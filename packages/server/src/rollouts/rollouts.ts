import {
  type CreateRollout,
  HoneError,
  newId,
  type PatchRollout,
  policyName,
  type RolloutInfo,
  type RolloutStatus,
  type Trajectory,
  type Turn,
} from "@hone/core";
import type { Logger } from "pino";
import type { StoredLedger } from "../ledger/ledger.ts";
import { sampledTurn, type TokenTexts } from "../ledger/sampled-text.ts";
import { conversations, usageOf } from "../ledger/trajectory.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Models } from "../policies/models.ts";
import { requireServed } from "../policies/served.ts";
import type { Clock } from "../ports/clock.ts";
import { canonicalSha256 } from "../store/canonical.ts";
import type { Statement, Store } from "../store/store.ts";
import { mergeNotes } from "./limits.ts";
import {
  insertRollout,
  readRollout,
  type RolloutRecord,
  selectOpenRollouts,
  selectRollout,
  updateRollout,
} from "./records.ts";

export const defaultLeaseMs = 10 * 60_000;

export interface Rollouts {
  create(keyId: string, body: CreateRollout): Promise<RolloutInfo>;
  patch(keyId: string, id: string, body: PatchRollout): Promise<RolloutInfo>;
  info(keyId: string, id: string): RolloutInfo;
  /** What is told of a rollout. `completions` is their number where the caller has counted them already. */
  describe(record: RolloutRecord, completions?: number): RolloutInfo;
  /** An open rollout, or one whose end is not written yet. Null for all others: the database knows as much of those. */
  inMemory(id: string): RolloutRecord | null;
  trajectory(keyId: string, id: string): Promise<Trajectory>;
  /** Throws `rollout_not_found`, also for the rollout of another key. */
  require(keyId: string, id: string): RolloutRecord;
  /** Fixes the policy of a rollout with its first completion. */
  pin(record: RolloutRecord, step: number): void;
  /** To be called when a request of the rollout begins. The function that it returns is called when the request is over. */
  beginCall(record: RolloutRecord): () => void;
  /** Closes an open rollout as `finished`; the statements have to be written by the caller. */
  finish(record: RolloutRecord, reward: number): Statement[];
  /** Notes in memory that the operation has claimed these rollouts. The database has it already. */
  noteClaims(ids: readonly string[], operationId: string): void;
  /** Notes in memory that the operation has given its rollouts back, except those with these ids. */
  noteReleased(operationId: string, except?: readonly string[]): void;
  /** Steps of a model that open rollouts are pinned to, or were made for. */
  openSteps(model: string): Set<number>;
  /** Ids of a model's open rollouts. */
  openOf(model: string): string[];
  /** Closes a model's open rollouts as `failed`; the statements have to be written by the caller. */
  failOpen(model: string, type: string, message: string): Statement[];
  /** Ends the rollouts that were silent for longer than the lease. */
  sweep(): Promise<void>;
}

interface Lease {
  expiresAt: number;
  calls: number;
}

export function createRollouts(options: {
  store: Store;
  ledger: StoredLedger;
  models: Models;
  live: LivePolicies;
  clock: Clock;
  leaseMs: number;
  publicURL: () => string;
  texts: TokenTexts;
  /** Hears that a rollout is over, however it ended. */
  onEnded?: ((id: string) => void) | undefined;
  log: Logger;
}): Rollouts {
  const { store, ledger, models, live, clock, leaseMs, log } = options;
  // Open rollouts, and closed ones whose last write has not ended.
  const records = new Map<string, RolloutRecord>();
  const leases = new Map<string, Lease>();

  // Nobody could renew a lease while the server was away, so each begins anew.
  for (const row of store.all(selectOpenRollouts)) {
    const record = readRollout(row);
    records.set(record.id, record);
    leases.set(record.id, { expiresAt: clock() + leaseMs, calls: 0 });
    if (record.policyStep !== null) live.hold(policyName(record.model, record.policyStep));
  }

  function find(id: string): RolloutRecord | null {
    const known = records.get(id);
    if (known) return known;
    const row = store.get(selectRollout, id);
    return row === undefined ? null : readRollout(row);
  }

  function require(keyId: string, id: string): RolloutRecord {
    const record = find(id);
    if (record && record.keyId === keyId) return record;
    throw new HoneError(
      `There is no rollout "${id.slice(0, 128)}". Create it with POST /v1/rollouts, with the same key.`,
      { code: "rollout_not_found", param: "rolloutId" },
    );
  }

  function renew(record: RolloutRecord): void {
    const lease = leases.get(record.id);
    if (lease) lease.expiresAt = clock() + leaseMs;
  }

  function close(record: RolloutRecord, status: Exclude<RolloutStatus, "open">): void {
    record.status = status;
    record.closedAt = clock();
    leases.delete(record.id);
    if (record.policyStep !== null) live.release(policyName(record.model, record.policyStep));
    options.onEnded?.(record.id);
  }

  function openOf(model: string): string[] {
    return [...leases.keys()].filter((id) => records.get(id)?.model === model);
  }

  async function save(record: RolloutRecord): Promise<void> {
    records.set(record.id, record);
    await store.write([updateRollout(record)]);
    forgetClosed(record);
  }

  function forgetClosed(record: RolloutRecord): void {
    if (record.status !== "open" && records.get(record.id) === record) records.delete(record.id);
  }

  /** The text is null where the renderer does not answer, because nothing that is rewarded or trained depends on it. */
  async function turnOf(turn: Parameters<typeof sampledTurn>[0]): Promise<Turn> {
    try {
      return await sampledTurn(turn, options.texts);
    } catch (error) {
      log.warn({ err: error }, "the sampled text of a turn cannot be had");
      const { id, finishReason } = turn.completion;
      return { id, message: turn.message, text: null, finish_reason: finishReason };
    }
  }

  function infoOf(record: RolloutRecord, completions = ledger.count(record.id)): RolloutInfo {
    return {
      id: record.id,
      object: "rollout",
      model: record.model,
      mode: record.mode,
      status: record.status,
      group: record.group,
      policy: record.policyStep === null ? null : policyName(record.model, record.policyStep),
      baseURL: `${options.publicURL()}/v1/rollouts/${record.id}/v1`,
      reward: record.reward,
      completions,
      leaseExpiresAt: leases.get(record.id)?.expiresAt ?? null,
      createdAt: record.createdAt,
    };
  }

  return {
    require,
    info: (keyId, id) => infoOf(require(keyId, id)),
    describe: infoOf,
    inMemory: (id) => records.get(id) ?? null,

    async create(keyId, body) {
      const bodySha = canonicalSha256({ ...body, id: undefined, mode: body.mode ?? "train" });
      const existing = body.id === undefined ? null : find(body.id);
      if (existing) {
        if (existing.keyId === keyId && existing.bodySha === bodySha) {
          renew(existing);
          await store.flush();
          return infoOf(existing);
        }
        throw new HoneError(
          `The rollout "${existing.id}" exists and was made from another request. Choose another id.`,
          { code: "rollout_exists", param: "id" },
        );
      }
      const model = models.require(body.model);
      if (body.step !== undefined) requireServed(models, model.name, body.step, "step");
      const record: RolloutRecord = {
        id: body.id ?? newId("ro"),
        keyId,
        model: body.model,
        mode: body.mode ?? "train",
        group: body.group ?? null,
        scenario: body.scenario ?? null,
        bodySha,
        step: body.step ?? null,
        createdAt: clock(),
        status: "open",
        policyStep: null,
        reward: null,
        metrics: {},
        metadata: {},
        logs: [],
        error: null,
        closedAt: null,
        trainedBy: null,
      };
      // Put into memory before it is written, so that the same id sent twice at once is found.
      records.set(record.id, record);
      leases.set(record.id, { expiresAt: clock() + leaseMs, calls: 0 });
      try {
        await store.write([insertRollout(record)]);
      } catch (error) {
        records.delete(record.id);
        leases.delete(record.id);
        throw error;
      }
      return infoOf(record);
    },

    async patch(keyId, id, body) {
      const record = require(keyId, id);
      // Once its end is on disk, everything before the end has to be there too.
      if (body.status !== undefined) await ledger.settle([id]);
      if (record.status !== "open" && (body.status ?? record.status) !== record.status) {
        throw closedError(record, `it cannot become ${body.status}`);
      }
      if (Object.keys(body).length === 0) {
        // A closed rollout has no lease, and whoever wants to renew it has to hear that.
        if (record.status !== "open") throw closedError(record, "its lease cannot be renewed");
        renew(record);
        return infoOf(record);
      }
      Object.assign(record, mergeNotes(record, body));
      if (body.reward !== undefined) record.reward = body.reward;
      renew(record);
      if (record.status === "open" && body.status !== undefined) close(record, body.status);
      await save(record);
      return infoOf(record);
    },

    async trajectory(keyId, id) {
      const record = require(keyId, id);
      const completions = await ledger.list(id);
      const [longest, ...histories] = await Promise.all(
        conversations(completions).map(async (conversation) => ({
          ...conversation,
          turns: await Promise.all(conversation.turns.map(turnOf)),
        })),
      );
      return {
        rolloutId: record.id,
        model: record.model,
        policy: record.policyStep === null ? null : policyName(record.model, record.policyStep),
        messages: longest?.messages ?? [],
        tools: longest?.tools ?? null,
        turns: longest?.turns ?? [],
        histories,
        reward: record.reward,
        metrics: record.metrics,
        metadata: record.metadata,
        logs: record.logs,
        usage: usageOf(completions),
        startedAt: record.createdAt,
        durationMs: Math.max(0, (record.closedAt ?? clock()) - record.createdAt),
      };
    },

    pin(record, step) {
      record.policyStep = step;
      live.hold(policyName(record.model, step));
      store.write([updateRollout(record)]).catch((error: unknown) => {
        log.error({ rollout: record.id, err: error }, "a rollout's policy could not be written");
      });
    },

    beginCall(record) {
      const lease = leases.get(record.id);
      if (lease) lease.calls++;
      renew(record);
      let over = false;
      return () => {
        if (over) return;
        over = true;
        if (lease) lease.calls--;
        renew(record);
      };
    },

    finish(record, reward) {
      record.reward = reward;
      close(record, "finished");
      return [updateRollout(record)];
    },

    noteClaims(ids, operationId) {
      for (const id of ids) {
        const record = records.get(id);
        if (!record) continue;
        record.trainedBy = operationId;
        forgetClosed(record);
      }
    },

    noteReleased(operationId, except = []) {
      const kept = new Set(except);
      for (const record of records.values()) {
        if (record.trainedBy !== operationId || kept.has(record.id)) continue;
        record.trainedBy = null;
        forgetClosed(record);
      }
    },

    openOf,
    failOpen: (model, type, message) =>
      openOf(model).flatMap((id) => {
        const record = records.get(id);
        if (!record) return [];
        record.error = { type, message };
        close(record, "failed");
        return [updateRollout(record)];
      }),

    openSteps(model) {
      const steps = new Set<number>();
      for (const id of leases.keys()) {
        const record = records.get(id);
        const step = record?.policyStep ?? record?.step ?? null;
        if (record?.model === model && step !== null) steps.add(step);
      }
      return steps;
    },

    async sweep() {
      const now = clock();
      for (const [id, lease] of leases) {
        const record = records.get(id);
        if (!record || lease.calls > 0 || lease.expiresAt > now) continue;
        log.info({ rollout: id }, "a rollout was silent for longer than its lease");
        close(record, "expired");
      }
      // Tries again to write the ends that could not be written. Otherwise a restart would find those rollouts open.
      for (const record of [...records.values()].filter(({ status }) => status !== "open")) {
        try {
          await ledger.settle([record.id]);
          await save(record);
        } catch (error) {
          log.warn(
            { rollout: record.id, err: error },
            "the end of a rollout cannot be written yet",
          );
        }
      }
      // Completions of open rollouts are tried again too: what is only in memory is lost if the server is killed.
      await ledger.settle().catch((error: unknown) => {
        log.warn({ err: error }, "completions cannot be written yet");
      });
      await ledger.retain((id) => leases.has(id));
    },
  };
}

function closedError(record: RolloutRecord, consequence: string): HoneError {
  return new HoneError(
    `The rollout "${record.id}" is ${record.status}: ${consequence}. Make a new rollout.`,
    { code: "rollout_closed", param: "rolloutId" },
  );
}
