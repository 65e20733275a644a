import { setTimeout as delay } from "node:timers/promises";
import { HoneError, type Health, type Keep } from "@hone/core";
import type { Hono } from "hono";
import type { Logger } from "pino";
import { createApp, shuttingDown } from "./app.ts";
import { baseFingerprint } from "./engines/base-fingerprint.ts";
import { openAdapterBucket } from "./engines/bucket/adapter-bucket.ts";
import type { BucketPlace } from "./engines/bucket/bucket-place.ts";
import { createJoinedEngines, type JoinedEngines } from "./engines/joined/joined-engines.ts";
import { engineRealm, joinedEngineRoutes, operatorEngineRoutes } from "./engines/joined/routes.ts";
import { keepEmbeddedApart } from "./engines/embedded-apart.ts";
import { embeddedIn } from "./engines/embedded-in-worker.ts";
import { connectEngines, keepEngines } from "./engines/outside.ts";
import type { EnginesByURL, VllmReplicas } from "./engines/outside.ts";
import { slotsFor } from "./engines/vllm/slots.ts";
import { createEnginePool, type EnginePool } from "./engines/pool.ts";
import { createGatewayCounters } from "./gateway/counters.ts";
import { gatewayRoutes } from "./gateway/routes.ts";
import type { AppEnv } from "./http/env.ts";
import type { ServerKey } from "./http/key-file.ts";
import { keyRoutes } from "./http/key-routes.ts";
import type { GivenOptions } from "./in-force/facts.ts";
import { liveFacts } from "./in-force/live-facts.ts";
import { optionRoutes } from "./in-force/routes.ts";
import type { Base } from "./operations/context.ts";
import { createRendererClient } from "./renderer/http-renderer.ts";
import { pythonModule } from "./setup/python-module.ts";
import { createHttpScorer } from "./scoring/http-scorer.ts";
import { createPolicyScorer } from "./models/policy-scorer.ts";
import { scoringRoutes } from "./scoring/routes.ts";
import { engineComponents, overall } from "./server-health.ts";
import { baseNameOf, summaryOf, type ServedBase } from "./served-base.ts";
import { metricsPage } from "./server-metrics.ts";
import { openState, type State } from "./state.ts";
import type { DataLock } from "./store/lock.ts";
import { firstStartMs, publicStatus, supervise, type Deadlines } from "./supervise/supervisor.ts";
import { takeOverChildren } from "./supervise/orphans.ts";
import { tinkerRoutes } from "./tinker/routes.ts";
import { createTrainerClient } from "./trainer/client.ts";
import { flag, workerCommand, type WorkerOptions } from "./trainer/worker-command.ts";
import { readWorkerMemory } from "./trainer/worker-memory.ts";

/** The renderer's limit. The prompt of the largest body that is accepted takes about half of it. @unit bytes */
const rendererMemory = 4 * 1024 ** 3;

export interface ComposeOptions extends WorkerOptions, EnginesByURL {
  /** As the operator gave them, to tell what is in force. */
  given?: GivenOptions | undefined;
  servedName?: string | undefined;
  /** vLLMs that this server runs. They are started with a type, which the worker has to have too. */
  vllm?:
    | (Pick<VllmReplicas, "python" | "replicas" | "flags" | "dtype"> & { sleep?: boolean })
    | undefined;
  /** How many policies old the rollouts may be that runs train on. @default 4 */
  maxStaleness?: number | undefined;
  /** The embedded engine has a process of its own. @default false */
  engineApart?: boolean | undefined;
  /** Only engines that join generate. @default false */
  joinedOnly?: boolean | undefined;
  python: string;
  renderer?: string | undefined;
  deadlines?: Partial<Deadlines> | undefined;
  leaseMs?: number | undefined;
  keep?: Keep | undefined;
  adapterMemory?: number | undefined;
  publishDeadlineMs?: number | undefined;
  probeTolerance?: number | undefined;
  /** Where engines that join find adapters, besides here. */
  bucket?: BucketPlace | undefined;
  hosts?: readonly string[] | undefined;
  origins?: readonly string[] | undefined;
  key: ServerKey;
  /** Of the data directory. The caller releases it, after `close`. */
  lock: DataLock;
  publicURL: () => string;
  onNotice?: ((line: string) => void) | undefined;
  log: Logger;
}

export interface Composition {
  /** Answers 503 until `start` has resolved. */
  app: Hono<AppEnv>;
  start(): Promise<void>;
  /** What it serves, once it has started. */
  about(): ServedBase;
  /** Refuses what comes in from now on. */
  refuse(): void;
  close(): Promise<void>;
}

/** How long operations may take to note that they were interrupted, before their worker is ended. */
const closeStateMs = 3_000;
const readLoadsEveryMs = 1_000;

/** Makes every part and joins them; nothing runs before `start`. */
export async function compose(options: ComposeOptions): Promise<Composition> {
  const { log } = options;
  const counters = createGatewayCounters();
  let stopping = false;
  let state: State | null = null;
  let served: ServedBase | null = null;
  let base: Base | null = null;

  const children = takeOverChildren(options.dataDir, log);
  const renderer = supervise({
    name: "renderer",
    onSpawn: (pid) => children.note("renderer", pid),
    unavailable: "renderer_unavailable",
    maxMemoryBytes: rendererMemory,
    ...pythonModule(options, "hone_worker.renderer", [
      "--base",
      options.base,
      ...flag("--renderer", options.renderer),
    ]),
    deadlines: options.deadlines,
    log,
  });
  const rendererClient = createRendererClient({ baseURL: renderer.baseURL, key: renderer.key });

  // Remote engines are asked which base they serve. Others are started with the base's name.
  const remotes = await connectEngines(options);
  const baseName = options.servedName ?? remotes.base ?? baseNameOf(options.base);
  const keeping = { pool: () => pool, log };
  const slots = (): number => slotsFor({ ...options, models: state?.modelsInUse() ?? 0 });
  /** Those of each vLLM that is started here: one that is replaced comes back with as many, which fitted. */
  let startedSlots: number | null = null;
  const named = { servedName: baseName, children };
  const apart = options.engineApart
    ? keepEmbeddedApart({ ...options, ...named, ...keeping })
    : null;
  const vllm = options.vllm && {
    ...{ ...options, ...options.vllm, ...named },
    maxLoraRank: () => state?.highestRank() ?? 0,
    maxLoras: () => (startedSlots ??= slots()),
    trainer: () => served?.memory ?? null,
    tell: (line: string) => options.onNotice?.(line),
    sleepsIn: options.vllm.sleep ? () => pool : undefined,
  };
  const kept = apart ? [apart] : keepEngines(remotes, vllm ?? null, keeping);
  const sleep = kept.find((one) => one.sleep)?.sleep;
  const isEmbedded = kept.length === 0 && !options.joinedOnly;
  /** By the worker's program, here or in a process of its own. */
  const generatesItself = isEmbedded || apart !== null;
  const does = apart ? "train-beside" : isEmbedded ? "both" : "train";
  const worker = supervise({
    name: "worker",
    onSpawn: (pid) => children.note("worker", pid),
    unavailable: "worker_unavailable",
    ...workerCommand(options, { baseName, does, releasesAfterStep: sleep !== undefined }),
    deadlines: options.deadlines,
    // Where others generate, the worker only trains. Operations go on once an engine is there too.
    onReady: async () => {
      await noteWorker();
      if (embedded) await engines.admit(embedded.name);
      else if (anyServes()) await restore();
    },
    onLost: () => {
      if (embedded) engines.fence(embedded.name);
    },
    log,
  });

  const embedded = isEmbedded ? embeddedIn(worker) : null;
  const pool: EnginePool = createEnginePool({
    replicas: embedded ? [embedded] : kept,
    restore,
    base: () => ({
      ...{ name: baseName, quantize: options.quantize, fingerprint },
      dtype: served?.dtype ?? options.dtype ?? "float32",
    }),
    deadlineMs: options.publishDeadlineMs,
    tolerance: () => options.probeTolerance,
    verify: async ({ policy }) => state?.requireWhole(policy),
    log,
  });
  const engines = sleep?.guard(pool) ?? pool;
  const bucket =
    options.bucket &&
    openAdapterBucket({ ...options, place: options.bucket, liveSet: () => engines.liveSet });
  let fingerprint: string | null = null;
  const joined: JoinedEngines = createJoinedEngines({
    dataDir: options.dataDir,
    pool: () => engines,
    closed: generatesItself
      ? "This server generates by its embedded engine. Start it with --engine joined, or with vLLM, for engines to join."
      : null,
    base: () => ({
      ...{ name: baseName, dtype: served?.dtype ?? options.dtype ?? "float32" },
      ...{ quantize: options.quantize ?? null, fingerprint },
      ...{ maxModelLen: base?.maxModelLen ?? 1, rank: state?.highestRank() ?? 0 },
      slots: slots(),
    }),
    probeTolerance: options.probeTolerance,
    ...{ publishDeadlineMs: options.publishDeadlineMs, bucket },
    taken: ["bucket", "renderer", "worker", "engine", "engines", ...kept.map(({ name }) => name)],
    log,
  });
  function anyServes(): boolean {
    return kept.some((one) => one.status().state === "ready") || joined.anyServes();
  }

  const scorer = createHttpScorer({ baseURL: worker.baseURL, key: worker.key });
  const worked = createTrainerClient({
    baseURL: worker.rawBaseURL,
    key: worker.key,
    onHang: () => void worker.kill(),
  });
  const trainer = sleep?.beside(worked) ?? worked;

  /** The type of the base is the worker's choice where the operator made none. */
  async function noteWorker(): Promise<void> {
    const memory = await readWorkerMemory(worker.rawBaseURL(), worker.key());
    if (served) Object.assign(served, { dtype: memory.dtype, memory });
    if (base) base.dtype = memory.dtype;
  }

  async function restore(): Promise<void> {
    await state?.onEngineReady();
  }

  function health(): Health {
    const watched: [name: string, status: Health["components"][string]][] = embedded
      ? [[embedded.name, { state: worker.status().state }]]
      : kept.map((one) => [one.name, one.status() as Health["components"][string]]);
    const components: Health["components"] = {
      renderer: { ...publicStatus(renderer.status()), ...(served && summaryOf(served)) },
      worker: publicStatus(worker.status()),
      ...engineComponents(watched, engines),
    };
    const states = Object.values(components).map((component) => component.state);
    const others = engineComponents(Object.entries(joined.status()), engines);
    // Of engines that join some may be away for long: what counts is that one serves.
    if (options.joinedOnly) states.push(joined.anyServes() ? "ready" : "starting");
    return {
      ...{ status: overall(states), base: baseName },
      // Without the bucket engines get the same from this server.
      components: { ...components, ...others, ...(bucket && { bucket: bucket.status() }) },
    };
  }

  const own = apart ?? (embedded && worker);
  let app = createApp({ ...appOptions(), routes: [] });
  function appOptions(): Omit<Parameters<typeof createApp>[0], "routes"> {
    return {
      keys: [
        {
          id: "owner",
          get key() {
            return options.key.key;
          },
        },
      ],
      realms: [engineRealm(joined)],
      hosts: options.hosts,
      origins: options.origins,
      log,
      health,
      // Other engines show their metrics themselves.
      metrics: () => metricsPage({ counters, engines, bucket, kept, joined, sleep, own }),
      admit() {
        if (stopping) throw shuttingDown();
        if (!state) {
          throw new HoneError("The server is starting. Send the request again in a moment.", {
            code: "worker_unavailable",
            retryAfterMs: firstStartMs,
          });
        }
      },
    };
  }

  const reading = setInterval(() => {
    engines.readLoads().catch((error: unknown) => {
      log.error({ err: error }, "the engines' loads could not be read");
    });
  }, readLoadsEveryMs);
  reading.unref();

  function about(): ServedBase {
    if (!served) throw new Error("asked before the start");
    const { memory } = served;
    return apart && memory
      ? { ...served, memory: { ...memory, kv_cache: apart.cacheBytes() } }
      : served;
  }

  let starting: Promise<void> = Promise.resolve();
  async function start(): Promise<void> {
    await bucket?.check();
    // The order matters: the state needs the longest sequence, which the renderer knows, and the worker's hook needs the
    // state.
    await renderer.start();
    const info = await rendererClient.info();
    const dtype = options.dtype ?? "float32";
    const bits = { name: baseName, dtype, quantize: options.quantize };
    served = { ...bits, device: options.device, renderer: info };
    const maxModelLen = Math.min(
      options.maxModelLen ?? info.maxModelLen,
      remotes.maxModelLen ?? info.maxModelLen,
      info.maxModelLen,
    );
    base = { ...bits, maxModelLen, vocabSize: info.vocabSize, sleeps: sleep !== undefined };
    state = await openState({
      dataDir: options.dataDir,
      lock: options.lock,
      engines,
      trainer,
      base,
      publicURL: options.publicURL,
      log,
      leaseMs: options.leaseMs,
      keep: options.keep,
      adapterMemory: options.adapterMemory,
      renderer: rendererClient,
    });
    if (stopping) throw shuttingDown();
    // The engine may take longer sequences than the operator allows or the trainer can handle.
    const sampler = { ...engines, info: async () => ({ ...(await engines.info()), maxModelLen }) };
    const gateway = gatewayRoutes({
      engine: sampler,
      renderer: rendererClient,
      tokens: state.tokenTable,
      ledger: state.ledger,
      router: state.router,
      log,
      counters,
    });
    const scoring = createPolicyScorer({
      ...{ scorer, base, ...state.scoring, renderer: rendererClient },
      loaded: new Set(Object.keys(options.rewardModels ?? {})),
    });
    const { router } = state;
    const { models } = state.scoring;
    const inForce = optionRoutes(options.dataDir, () =>
      liveFacts({
        ...{ given: options.given ?? {}, url: options.publicURL(), models, pool: engines },
        modelsInUse: state?.modelsInUse() ?? 0,
        base: { name: baseName, dtype: about().dtype, renderer: info.name, maxModelLen },
        ...{ memory: about().memory ?? null, engines: joined.list() },
        ...{ bucket: bucket?.status() ?? null, slots: startedSlots, metrics: appOptions().metrics },
      }),
    );
    const tinker = tinkerRoutes({
      ...{ ...state.tinker, base: baseName, engine: sampler },
      ...{ renderer: rendererClient, router, log },
    });
    app = createApp({
      ...appOptions(),
      routes: [
        ...[gateway, state.routes, scoringRoutes(scoring), keyRoutes(options.key), tinker],
        ...[operatorEngineRoutes(joined), joinedEngineRoutes(joined), inForce],
      ],
    });
    // An engine that is there lets operations go on, for which the worker has to be there as well.
    await worker.start();
    await Promise.all(kept.map((one) => one.start()));
    if (!generatesItself) fingerprint = await baseFingerprint(options.base);
    joined.start();
  }

  return {
    get app() {
      return app;
    },
    start() {
      starting = start();
      return starting;
    },
    about,
    refuse() {
      stopping = true;
      joined.refuse();
    },
    async close() {
      stopping = true;
      clearInterval(reading);
      // Operations get some time to note that they were interrupted. Then the processes that they wait for are ended.
      const closing = state?.close();
      await settled(closing, closeStateMs);
      await Promise.all([worker, renderer, joined, ...kept].map((one) => one.stop()));
      children.clear();
      await starting.catch(() => undefined);
      await bucket?.close();
      await (closing ?? state?.close());
      const drivers = embedded ? [embedded] : kept;
      await Promise.all([
        ...[rendererClient.close(), scorer.close()],
        ...drivers.map(({ engine }) => engine.close()),
      ]);
    },
  };
}

async function settled(promise: Promise<unknown> | undefined, limitMs: number): Promise<void> {
  await Promise.race([promise?.catch(() => undefined), delay(limitMs, undefined, { ref: false })]);
}
