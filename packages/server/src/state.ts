import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { Hono } from "hono";
import pLimit from "p-limit";
import type { Logger } from "pino";
import type { AppEnv } from "./http/env.ts";
import { createLedger } from "./ledger/ledger.ts";
import type { Base } from "./operations/context.ts";
import { createEventLog } from "./operations/events.ts";
import { createOperations } from "./operations/operations.ts";
import { createReadyGate } from "./operations/ready.ts";
import { operationRoutes } from "./operations/routes.ts";
import { createCheckpoints } from "./policies/checkpoints.ts";
import { createLivePolicies } from "./policies/live.ts";
import { createModels } from "./policies/models.ts";
import { modelRoutes } from "./policies/routes.ts";
import { createModelService } from "./policies/service.ts";
import type { Clock } from "./ports/clock.ts";
import type { Engine } from "./ports/engine.ts";
import type { Ledger } from "./ports/ledger.ts";
import type { PolicyRouter } from "./ports/rollouts.ts";
import type { Trainer } from "./ports/trainer.ts";
import { createPolicyRouter } from "./rollouts/router.ts";
import { createRollouts, defaultLeaseMs } from "./rollouts/rollouts.ts";
import { rolloutRoutes } from "./rollouts/routes.ts";
import { makeFolder } from "./store/files.ts";
import { lockDataDir } from "./store/lock.ts";
import { openStore } from "./store/store.ts";

export interface StateOptions {
  dataDir: string;
  engine: () => Engine;
  trainer: Trainer;
  base: Base;
  /** Where clients reach this server, without `/v1`. */
  publicURL: () => string;
  log: Logger;
  clock?: Clock | undefined;
  /** Silence after which an open rollout expires. */
  leaseMs?: number | undefined;
  /** Folders from which `import` may read; default: `imports` in the data directory. */
  importRoots?: readonly string[] | undefined;
}

/** All that outlives a process: models, rollouts, the ledger, operations. */
export interface State {
  ledger: Ledger;
  router: PolicyRouter;
  /** The training plane: models, rollouts, operations. */
  routes: Hono<AppEnv>;
  /**
   * To be called each time that the engine and the worker have come up, and awaited before the engine takes
   * traffic: it loads the policies that are served, then goes on with the operations.
   */
  onEngineReady(): Promise<void>;
  /** Policies that the engine should serve and does not. Rejects when it does not answer. */
  missingPolicies(): Promise<string[]>;
  /** Ends the rollouts whose lease is over; called every few seconds on its own. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

const sweepEveryMs = 5_000;

export async function openState(options: StateOptions): Promise<State> {
  const { engine, trainer, base, log } = options;
  // The worker is given paths in it, and has another working directory.
  const dataDir = resolve(options.dataDir);
  const clock = options.clock ?? Date.now;
  await makeFolder(dataDir);
  const lock = lockDataDir(dataDir);
  try {
    const imports = join(dataDir, "imports");
    await makeFolder(imports);
    await makeFolder(join(dataDir, "models"));
    const store = await openStore(dataDir);
    const models = createModels(store, clock);
    const checkpoints = createCheckpoints(dataDir, randomBytes(6).toString("hex"), log);
    await checkpoints.sweepStaging();
    const ledger = createLedger(store, log);
    const live = createLivePolicies({ engine, checkpoints, models, base: base.name, log });
    const rollouts = createRollouts({
      store,
      ledger,
      models,
      live,
      clock,
      leaseMs: options.leaseMs ?? defaultLeaseMs,
      publicURL: options.publicURL,
      log,
    });
    const events = createEventLog(store, clock);
    const ready = createReadyGate();
    const operations = await createOperations({
      store,
      ledger,
      models,
      checkpoints,
      live,
      rollouts,
      engine,
      trainer,
      trainTurn: pLimit(1),
      events,
      ready,
      base,
      importRoots: options.importRoots ?? [imports],
      clock,
      log,
    });
    const router = createPolicyRouter({
      rollouts,
      models,
      live,
      engine,
      base: base.name,
      startedAt: clock(),
    });
    const service = createModelService({ models, checkpoints, live, trainer, base });
    const routes = new Hono<AppEnv>()
      .route("/", modelRoutes(service))
      .route("/", rolloutRoutes(rollouts))
      .route("/", operationRoutes({ operations, events }));
    const sweeper = setInterval(() => {
      rollouts.sweep().catch((error: unknown) => log.error({ err: error }, "the sweep failed"));
    }, sweepEveryMs);
    sweeper.unref();

    return {
      ledger,
      router,
      routes,
      async onEngineReady() {
        await live.reload();
        ready.opened();
        operations.start();
      },
      missingPolicies: () => live.missing(),
      sweep: () => rollouts.sweep(),
      async close() {
        clearInterval(sweeper);
        await operations.close();
        await store.close();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}
