import { basename } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError, type Health, type Keep } from "@hone/core";
import type { Hono } from "hono";
import type { Logger } from "pino";
import { createApp, shuttingDown } from "./app.ts";
import { engineMetrics } from "./engines/engine-metrics.ts";
import { createHttpEngine, type HttpEngine } from "./engines/http-engine.ts";
import { createEnginePool } from "./engines/pool.ts";
import { createGatewayCounters, formatGatewayCounters } from "./gateway/counters.ts";
import { gatewayRoutes } from "./gateway/routes.ts";
import type { AppEnv } from "./http/env.ts";
import type { ServerKey } from "./http/key-file.ts";
import { keyRoutes } from "./http/key-routes.ts";
import type { Base } from "./operations/context.ts";
import type { Quantize } from "./ports/trainer.ts";
import type { RendererInfo } from "./ports/renderer.ts";
import { createRendererClient } from "./renderer/http-renderer.ts";
import { workerDir } from "./setup/paths.ts";
import { createHttpScorer } from "./scoring/http-scorer.ts";
import { scoringRoutes } from "./scoring/routes.ts";
import { openState, type State } from "./state.ts";
import type { DataLock } from "./store/lock.ts";
import { watchRemoteEngine, type RemoteEngine } from "./supervise/remote-engine.ts";
import {
  firstStartMs,
  supervise,
  type Deadlines,
  type SupervisedStatus,
} from "./supervise/supervisor.ts";
import { takeOverChildren } from "./supervise/orphans.ts";
import { tinkerRoutes } from "./tinker/routes.ts";
import { createTrainerClient } from "./trainer/client.ts";
import { flag, workerArguments, type WorkerOptions } from "./trainer/worker-arguments.ts";
import { readWorkerMemory, type WorkerMemory } from "./trainer/worker-memory.ts";

/** The renderer's limit. The prompt of the largest body that is accepted takes about half of it. @unit bytes */
const rendererMemory = 4 * 1024 ** 3;

export interface ComposeOptions extends WorkerOptions {
  servedName?: string | undefined;
  engineURL?: string | undefined;
  engineKey?: string | undefined;
  python: string;
  renderer?: string | undefined;
  deadlines?: Partial<Deadlines> | undefined;
  leaseMs?: number | undefined;
  keep?: Keep | undefined;
  adapterMemory?: number | undefined;
  hosts?: readonly string[] | undefined;
  origins?: readonly string[] | undefined;
  key: ServerKey;
  /** Of the data directory. The caller releases it, after `close`. */
  lock: DataLock;
  publicURL: () => string;
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

/** What was taken for the base, by what it is and by the operator's options. */
export interface ServedBase {
  name: string;
  dtype: "float32" | "bfloat16";
  quantize?: Quantize | undefined;
  device: "cpu" | "cuda";
  renderer: RendererInfo;
  /** What the parts of the worker got of it. */
  memory?: WorkerMemory;
}

/** How long operations may take to note that they were interrupted, before their worker is ended. */
const closeStateMs = 3_000;

/** Makes every part and joins them; nothing runs before `start`. */
export async function compose(options: ComposeOptions): Promise<Composition> {
  const { log, engineURL } = options;
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

  // A remote engine is asked which base it serves. The embedded one is started with the base's name.
  const remote =
    engineURL === undefined ? null : remoteEngine(engineURL, options.engineKey ?? null);
  const remoteInfo = await remote?.info().catch((cause: unknown) => {
    throw noEngine(engineURL ?? "", cause);
  });
  const baseName = options.servedName ?? remoteInfo?.base ?? nameOf(options.base);
  const worker = supervise({
    name: "worker",
    onSpawn: (pid) => children.note("worker", pid),
    unavailable: "worker_unavailable",
    ...pythonModule(
      options,
      "hone_worker.worker",
      workerArguments(options, { baseName, hasEngine: remote === null }),
    ),
    deadlines: options.deadlines,
    // With a remote engine the worker only trains. Operations go on once the engine is there too.
    onReady: async () => {
      await noteWorker();
      if (!watcher) await engines.admit("engine");
      else if (watcher.status().state === "ready") await restore();
    },
    onLost: () => {
      if (!watcher) engines.fence("engine");
    },
    log,
  });

  const watcher: RemoteEngine | null =
    engineURL === undefined
      ? null
      : watchRemoteEngine({
          url: engineURL,
          missing: () => engines.missing("engine"),
          onReady: () => engines.admit("engine"),
          onLost: () => engines.fence("engine"),
          log,
        });
  const engine =
    remote ?? createHttpEngine({ kind: "embedded", baseURL: worker.rawBaseURL, key: worker.key });
  const engines = createEnginePool({
    replicas: [
      {
        ...{ name: "engine", engine },
        requireUp: () => (watcher ?? worker).baseURL(),
        onFenced: () => (watcher ?? worker).doubt(),
      },
    ],
    restore,
    log,
  });
  const scorer = createHttpScorer({ baseURL: worker.baseURL, key: worker.key });
  const trainer = createTrainerClient({
    baseURL: worker.rawBaseURL,
    key: worker.key,
    onHang: () => void worker.kill(),
  });

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
    const components = {
      renderer: { ...publicStatus(renderer.status()), ...(served && summaryOf(served)) },
      worker: publicStatus(worker.status()),
      engine: watcher?.status() ?? { state: worker.status().state },
    };
    const states = Object.values(components).map((component) => component.state);
    return { status: overall(states), base: baseName, components };
  }

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
      hosts: options.hosts,
      origins: options.origins,
      log,
      health,
      metrics: async () => {
        // A remote engine shows its metrics itself.
        const ofEngine = remote ? "" : await engineMetrics(worker.baseURL, worker.key);
        return formatGatewayCounters(counters) + ofEngine;
      },
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

  let starting: Promise<void> = Promise.resolve();
  async function start(): Promise<void> {
    // The order matters: the state needs the longest sequence, which the renderer knows, and the worker's hook needs the
    // state.
    await renderer.start();
    const info = await rendererClient.info();
    const dtype = options.dtype ?? "float32";
    const bits = { name: baseName, dtype, quantize: options.quantize };
    served = { ...bits, device: options.device, renderer: info };
    const maxModelLen = Math.min(
      options.maxModelLen ?? info.maxModelLen,
      remoteInfo?.maxModelLen ?? info.maxModelLen,
      info.maxModelLen,
    );
    base = { ...bits, maxModelLen };
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
    const { router } = state;
    const tinker = tinkerRoutes({
      ...{
        ...state.tinker,
        base: baseName,
        engine: sampler,
        renderer: rendererClient,
        router,
        log,
      },
    });
    app = createApp({
      ...appOptions(),
      routes: [gateway, state.routes, scoringRoutes(scorer), keyRoutes(options.key), tinker],
    });
    await worker.start();
    await watcher?.start();
  }

  return {
    get app() {
      return app;
    },
    start() {
      starting = start();
      return starting;
    },
    about() {
      if (!served) throw new Error("asked before the start");
      return served;
    },
    refuse() {
      stopping = true;
    },
    async close() {
      stopping = true;
      // Operations get some time to note that they were interrupted. Then the processes that they wait for are ended.
      const closing = state?.close();
      await settled(closing, closeStateMs);
      await watcher?.stop();
      await Promise.all([worker.stop(), renderer.stop()]);
      children.clear();
      await starting.catch(() => undefined);
      await (closing ?? state?.close());
      await Promise.all([rendererClient.close(), scorer.close(), engine.close()]);
    },
  };
}

function summaryOf({ renderer, memory, quantize }: ServedBase): Record<string, unknown> {
  const { name, bridges, tools, plainTexts } = renderer;
  const dtype = memory && { dtype: memory.dtype };
  return { name, bridges, tools, plainTexts, ...dtype, ...(quantize && { quantize }) };
}

function pythonModule(
  options: Pick<ComposeOptions, "python">,
  module: string,
  args: string[],
): { command: string; args: string[]; env: Record<string, string | null> } {
  return {
    command: options.python,
    // -s: packages of the user's home are not the environment's.
    args: ["-s", "-m", module, ...args],
    env: {
      PYTHONPATH: workerDir,
      PYTHONHOME: null,
      PYTHONUNBUFFERED: "1",
      OMP_WAIT_POLICY: "passive",
      TOKENIZERS_PARALLELISM: "false",
    },
  };
}

function remoteEngine(url: string, key: string | null): HttpEngine {
  return createHttpEngine({ kind: "vllm", baseURL: () => url, key: () => key });
}

/** At the start the engine cannot be restarting, so the URL is wrong or nothing listens there yet. */
function noEngine(url: string, cause: unknown): HoneError {
  const reason = (cause as { cause?: { code?: unknown } }).cause?.code;
  const isAway = HoneError.isInstance(cause) && cause.code === "engine_unavailable";
  const what = isAway
    ? `No engine answers at ${originOf(url)}${typeof reason === "string" ? ` (${reason})` : ""}`
    : `What answers at ${originOf(url)} is not a vLLM server that Hone can use: ${(cause as Error).message}`;
  return new HoneError(
    `${what.replace(/[.\s]+$/, "")}. Start vLLM there first (docs/server.md has its flags), mend --engine-url, or leave it out: the embedded engine then generates.`,
    { code: isAway ? "engine_unavailable" : "engine_error", param: "engineURL", cause },
  );
}

/** The origin of a URL, which leaves out a password that may stand in it. */
function originOf(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : url;
}

/** The base's name: the hub id, or the name of the folder. */
function nameOf(base: string): string {
  return /^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith(".") ? base : basename(base);
}

/** Leaves out what a child wrote before it died, which may hold paths. It is in the server's log. */
function publicStatus(status: SupervisedStatus): Omit<SupervisedStatus, "lastFailure"> {
  const { lastFailure: _, ...rest } = status;
  return rest;
}

function overall(states: readonly string[]): Health["status"] {
  if (states.every((state) => state === "ready")) return "ok";
  return states.every((state) => state === "ready" || state === "starting")
    ? "starting"
    : "degraded";
}

async function settled(promise: Promise<unknown> | undefined, limitMs: number): Promise<void> {
  await Promise.race([promise?.catch(() => undefined), delay(limitMs, undefined, { ref: false })]);
}
