import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { type Keep, parseModelRef, policyName } from "@hone/core";
import { Hono } from "hono";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { createTokenTable, type TokenTable } from "./gateway/token-table.ts";
import type { AppEnv } from "./http/env.ts";
import { createLedger } from "./ledger/ledger.ts";
import { callsSinceStep } from "./operations/calls.ts";
import type { Base } from "./operations/context.ts";
import { createEventLog } from "./operations/events.ts";
import { createOperations } from "./operations/operations.ts";
import { createReadyGate } from "./operations/ready.ts";
import { listOperations } from "./operations/list.ts";
import { operationRoutes } from "./operations/routes.ts";
import { type Checkpoints, createCheckpoints } from "./policies/checkpoints.ts";
import { createGradients } from "./policies/gradients.ts";
import { createModelDeletion } from "./models/deletion.ts";
import { modelsInUse } from "./models/in-use.ts";
import { type LivePolicies, createLivePolicies, defaultAdapterMemory } from "./policies/live.ts";
import { type Models, createModels } from "./policies/models.ts";
import { createPolicies } from "./models/policies.ts";
import { modelRoutes } from "./models/routes.ts";
import { createModelService } from "./models/service.ts";
import type { Clock } from "./ports/clock.ts";
import type { Engines } from "./ports/engine.ts";
import type { Ledger } from "./ports/ledger.ts";
import type { Renderer } from "./ports/renderer.ts";
import type { PolicyRouter } from "./ports/rollouts.ts";
import type { Trainer } from "./ports/trainer.ts";
import { collectGarbage } from "./retention/gc.ts";
import { noteKeep } from "./retention/offline.ts";
import { createRetention, defaultKeep } from "./retention/retention.ts";
import { gcRoutes } from "./retention/routes.ts";
import { createRolloutReader } from "./rollouts/list.ts";
import { createPolicyRouter } from "./rollouts/router.ts";
import { createRollouts, defaultLeaseMs } from "./rollouts/rollouts.ts";
import { bulkRolloutRoutes } from "./rollouts/bulk-routes.ts";
import { rolloutRoutes } from "./rollouts/routes.ts";
import { makeFolder } from "./store/files.ts";
import { lockDataDir, type DataLock } from "./store/lock.ts";
import { openStore } from "./store/store.ts";
import type { TinkerParts } from "./tinker/parts.ts";

export interface StateOptions {
  dataDir: string;
  /** Of the data directory, where the caller holds and releases it. @default the state's own */
  lock?: DataLock | undefined;
  engines: Engines;
  trainer: Trainer;
  base: Base;
  /** Where clients reach this server, without `/v1`. */
  publicURL: () => string;
  log: Logger;
  clock?: Clock | undefined;
  /** Silence after which an open rollout expires. */
  leaseMs?: number | undefined;
  /** How many of the newest policies of each model stay. @default 10 */
  keep?: Keep | undefined;
  /** What adapters in the engine may take, besides those in use. @unit bytes @default 512 MiB */
  adapterMemory?: number | undefined;
  /** Tells what sampled ids spell, for trajectories and for people who look at rollouts. */
  renderer?: Pick<Renderer, "tokens" | "info" | "withTemplate"> | undefined;
  /** Folders from which `import` may read; default: `imports` in the data directory. */
  importRoots?: readonly string[] | undefined;
}

/** All that outlives a process: models, rollouts, the ledger, operations. */
export interface State {
  ledger: Ledger;
  router: PolicyRouter;
  /** What token ids spell: each is asked of the renderer once. */
  tokenTable: TokenTable;
  /** The training plane: models, rollouts, operations. */
  routes: Hono<AppEnv>;
  /** What policies with a head are found by. */
  scoring: { models: Models; checkpoints: Checkpoints; live: LivePolicies };
  /** The same models and operations, for another API over them. */
  tinker: Pick<TinkerParts, "models" | "operations">;
  /** Of the adapters of all models; 0 where there is none. */
  highestRank(): number;
  /** Models of the base that are played or trained now. */
  modelsInUse(): number;
  /**
   * To be called each time that an engine or the worker has come up, and awaited before an engine takes traffic:
   * it loads the policies that are served, then goes on with the operations.
   */
  onEngineReady(): Promise<void>;
  /** Compares the files of a policy with what was written. Throws `bad_adapter`. */
  requireWhole(policy: string): Promise<void>;
  /** Ends the rollouts whose lease is over; called every few seconds on its own. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

const sweepEveryMs = 5_000;

const noRenderer: Pick<Renderer, "tokens" | "info" | "withTemplate"> = {
  tokens: () => Promise.reject(new Error("there is no renderer")),
  info: () => Promise.reject(new Error("there is no renderer")),
  withTemplate: () => {
    throw new Error("there is no renderer");
  },
};

export async function openState(options: StateOptions): Promise<State> {
  const { engines, trainer, base, log } = options;
  // Absolute, because the worker gets paths in it and has another working directory.
  const dataDir = resolve(options.dataDir);
  const clock = options.clock ?? Date.now;
  await makeFolder(dataDir);
  const ownLock = options.lock ? null : lockDataDir(dataDir);
  try {
    const imports = join(dataDir, "imports");
    await makeFolder(imports);
    await makeFolder(join(dataDir, "models"));
    const store = await openStore(dataDir, log);
    const models = createModels(store, clock);
    const checkpoints = createCheckpoints(dataDir, randomBytes(6).toString("hex"), log);
    await checkpoints.sweepStaging();
    const ledger = createLedger(store, log);
    const memory = options.adapterMemory ?? defaultAdapterMemory;
    const live = createLivePolicies({ engines, checkpoints, models, base, memory, log });
    const renderer = options.renderer ?? noRenderer;
    const tokenTable = createTokenTable(renderer);
    const rollouts = createRollouts({
      store,
      ledger,
      models,
      live,
      clock,
      leaseMs: options.leaseMs ?? defaultLeaseMs,
      publicURL: options.publicURL,
      texts: {
        text: (ids) => tokenTable.text(ids),
        stopIds: async () => (await renderer.info()).stopTokenIds,
      },
      onEnded: (id) => engines.rolloutEnded(id),
      log,
    });
    const keep = options.keep ?? defaultKeep;
    await noteKeep(dataDir, keep);
    const retention = createRetention({
      store,
      models,
      checkpoints,
      held: (name) => {
        const steps = rollouts.openSteps(name);
        for (const step of operations.readsOf(name)) steps.add(step);
        for (const { step } of models.policies(name)) {
          if (live.isHeld(policyName(name, step))) steps.add(step);
        }
        return steps;
      },
      unload: (policy) => live.unload(policy),
      keep,
      log,
    });
    const events = createEventLog(store, clock);
    const ready = createReadyGate();
    const operations = await createOperations({
      store,
      ledger,
      models,
      checkpoints,
      gradients: createGradients(dataDir, store),
      live,
      rollouts,
      engines,
      trainer,
      renderer,
      trainTurn: pLimit(1),
      events,
      ready,
      retention,
      base,
      importRoots: options.importRoots ?? [imports],
      clock,
      log,
    });
    const router = createPolicyRouter({
      rollouts,
      models,
      live,
      engines,
      base,
      startedAt: clock(),
    });
    const serially = pLimit(1);
    const service = createModelService({
      models,
      checkpoints,
      live,
      trainer,
      unfinished: (name) => operations.unfinished(name),
      base,
      checkTemplate: async (kwargs) => {
        await renderer.withTemplate(kwargs).info();
      },
      serially,
    });
    const deletion = createModelDeletion({
      store,
      models,
      checkpoints,
      live,
      rollouts,
      operations,
      retention,
      serially,
      log,
    });
    const policies = createPolicies({ models, checkpoints, live, retention });
    const tokens = async (ids: readonly number[]) =>
      (await renderer.tokens(ids)).map(({ token }) => token);
    const reader = createRolloutReader({ store, models, ledger, rollouts, tokens, log });
    const list = listOperations.bind(null, { store, models });
    const routes = new Hono<AppEnv>()
      .route(
        "/",
        modelRoutes({
          service,
          policies,
          deletion,
          memory: () => ({ bytes: live.usage().bytes, maxBytes: memory }),
        }),
      )
      .route("/", rolloutRoutes(rollouts, reader))
      .route("/", bulkRolloutRoutes(rollouts, log))
      .route("/", operationRoutes({ operations, list, events }))
      .route(
        "/",
        gcRoutes((request) =>
          collectGarbage({ store, models, checkpoints, retention, clock, alone: false }, request),
        ),
      );
    // A pass that the server's end cut off is done now, and so is what another `keep` allows to be removed.
    retention.apply().catch((error: unknown) => {
      log.error({ err: error }, "old policies could not be removed");
    });
    deletion.resume();
    const sweeper = setInterval(() => {
      rollouts.sweep().catch((error: unknown) => log.error({ err: error }, "the sweep failed"));
    }, sweepEveryMs);
    sweeper.unref();

    return {
      ledger,
      router,
      tokenTable,
      routes,
      scoring: { models, checkpoints, live },
      highestRank: () => Math.max(0, ...models.list().map(({ lora }) => lora.r)),
      modelsInUse: () => modelsInUse(base, { models, live, operations }),
      tinker: {
        models: { ...service, pin: (name, step) => policies.pin(name, step, true) },
        operations: {
          ...operations,
          callsSinceStep: (program) => callsSinceStep(store, program),
          async ended(id, signal) {
            for await (const event of events.follow(id, 0, signal)) {
              if (event.type === "ended") return;
            }
          },
        },
      },
      async requireWhole(policy) {
        const ref = parseModelRef(policy);
        // An import that is being tried is no policy, and has just been looked at.
        if (ref && ref.step !== null) await checkpoints.adapter(ref.model, ref.step);
      },
      async onEngineReady() {
        await live.reload();
        ready.opened();
        operations.start();
      },
      sweep: () => rollouts.sweep(),
      async close() {
        clearInterval(sweeper);
        await operations.close();
        await deletion.close();
        await retention.idle();
        await ledger.settle().catch((error: unknown) => {
          log.error(
            { err: error },
            "completions could not be written: they are lost with this end",
          );
        });
        await store.close();
        ownLock?.release();
      },
    };
  } catch (error) {
    ownLock?.release();
    throw error;
  }
}
