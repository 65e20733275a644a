import { existsSync, rmSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { HoneError } from "@hone/core";
import { pino, type Logger } from "pino";
import { createApp } from "./app.ts";
import { createChildren } from "./children.ts";
import { createHttpEngine } from "./engine/http-engine.ts";
import { createGatewayCounters } from "./gateway/counters.ts";
import { gatewayRoutes } from "./gateway/routes.ts";
import { keyFileOf, loadKey } from "./keys.ts";
import { listen, type Listener } from "./listen.ts";
import { createRendererClient } from "./renderer/http-renderer.ts";
import { findEnvironment } from "./setup/environment.ts";
import { defaultDataDir } from "./setup/paths.ts";
import { openState, type State } from "./state.ts";
import { writeSynced } from "./store/files.ts";
import { createTrainerClient } from "./trainer/client.ts";

export interface ServerOptions {
  /** The base model: a local folder or a hub id. */
  base: string;
  /** @default the base's id, or its folder's name */
  servedName?: string | undefined;
  /** @default 127.0.0.1 */
  host?: string | undefined;
  /** @default 0, any free port */
  port?: number | undefined;
  /** @default HONE_HOME, else ~/.hone */
  dataDir?: string | undefined;
  /** @default "cpu" */
  device?: "cpu" | "cuda" | undefined;
  /** Of the base; adapters are float32. @default float32 on CPU, bfloat16 on CUDA */
  dtype?: "float32" | "bfloat16" | undefined;
  /** Tokens of a sequence at most. @default the base's */
  maxModelLen?: number | undefined;
  /** The renderer of the base's chat template. @default "auto" */
  renderer?: string | undefined;
  /** A vLLM to generate with, instead of the embedded engine. */
  engineURL?: string | undefined;
  engineKey?: string | undefined;
  /** The interpreter to run the worker with. @default what `setup` installed */
  python?: string | undefined;
  /** Host names besides loopback ones under which clients may address the server. */
  allowHosts?: readonly string[] | undefined;
  allowOrigins?: readonly string[] | undefined;
  /** Folders that `import` may read. @default `imports` in the data directory */
  importRoots?: readonly string[] | undefined;
  /** @default a silent one */
  log?: Logger | undefined;
}

export interface RunningServer {
  /** Without `/v1`. */
  url: string;
  key: string;
  keyFile: string;
  dataDir: string;
  close(): Promise<void>;
}

const loopback = new Set(["127.0.0.1", "::1", "localhost"]);
const closeGraceMs = 2_000;

/** Starts renderer, worker and the public port; resolves when the base can be sampled from. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const log = options.log ?? pino({ level: "silent" });
  const host = options.host ?? "127.0.0.1";
  const dataDir = resolve(options.dataDir ?? defaultDataDir());
  const base = checkBase(options.base);
  const servedName = options.servedName ?? (base === options.base ? base : basename(base));
  const device = options.device ?? "cpu";
  const dtype = options.dtype ?? (device === "cuda" ? "bfloat16" : "float32");
  const key = loadKey(dataDir);
  const python = options.python ?? (await findEnvironment());

  let state: State | null = null;
  const { renderer, worker } = createChildren({
    python,
    base,
    servedName,
    renderer: options.renderer ?? "auto",
    device,
    dtype,
    maxModelLen: options.maxModelLen,
    trainOnly: options.engineURL !== undefined,
    onWorkerReady: async () => await state?.onEngineReady(),
    log,
  });
  const { engineURL } = options;
  const createEngine = (embedded: () => string) =>
    createHttpEngine(
      engineURL === undefined
        ? { kind: "embedded", baseURL: embedded, key: () => worker.key() }
        : { kind: "vllm", baseURL: () => engineURL, key: () => options.engineKey ?? null },
    );
  // Two drivers: policies are loaded into an engine before it takes traffic.
  const engine = createEngine(() => worker.baseURL());
  const loading = createEngine(() => worker.rawBaseURL());
  const rendererClient = createRendererClient({
    baseURL: () => renderer.baseURL(),
    key: () => renderer.key(),
  });
  const trainer = createTrainerClient({
    baseURL: () => worker.rawBaseURL(),
    key: () => worker.key(),
  });

  let listener: Listener | null = null;
  const addressFile = join(dataDir, "server.json");
  let wroteAddress = false;
  async function close(): Promise<void> {
    if (wroteAddress) rmSync(addressFile, { force: true });
    // Steps under way are ended first: a worker that is gone would look like one that died.
    const stateClosed = state?.close();
    await listener?.close(closeGraceMs);
    await stateClosed;
    await Promise.all([renderer.stop(), worker.stop()]);
    await Promise.all([engine.close(), loading.close(), rendererClient.close()]);
  }

  try {
    await Promise.all([renderer.start(), worker.start()]);
    const info = await loading.info();
    let url = "";
    state = await openState({
      dataDir,
      engine: () => loading,
      trainer,
      base: { name: info.base, maxModelLen: info.maxModelLen, dtype },
      publicURL: () => url,
      importRoots: options.importRoots,
      log,
    });
    await state.onEngineReady();
    const counters = createGatewayCounters();
    const app = createApp({
      guard: {
        keys: [{ id: "operator", key }],
        keyFile: keyFileOf(dataDir),
        hosts: [...(loopback.has(host) ? [] : [host]), ...(options.allowHosts ?? [])],
        origins: options.allowOrigins,
      },
      routes: [
        gatewayRoutes({
          engine,
          renderer: rendererClient,
          ledger: state.ledger,
          router: state.router,
          log,
          counters,
        }),
        state.routes,
      ],
      health: async () => ({
        status: "ok",
        base: info.base,
        engine: engine.kind,
        renderer: renderer.status(),
        worker: worker.status(),
        counters,
      }),
      log,
    });
    listener = await listen(app, host, options.port ?? 0);
    url = `http://${host.includes(":") ? `[${host}]` : host}:${listener.port}`;
    await writeSynced(addressFile, `${JSON.stringify({ url, pid: process.pid })}\n`);
    wroteAddress = true;
    log.info({ url, base: info.base, engine: engine.kind }, "ready");
    return { url, key, keyFile: keyFileOf(dataDir), dataDir, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A folder is given as a path; what is neither a path nor of a hub id's shape is refused before anything starts. */
function checkBase(base: string): string {
  const looksLikePath = /^[./~]|^[A-Za-z]:[\\/]/.test(base) || existsSync(base);
  if (!looksLikePath) {
    if (/^[\w.-]+\/[\w.-]+$/.test(base)) return base;
  } else if (existsSync(base) && statSync(base).isDirectory()) {
    if (existsSync(join(base, "config.json"))) return resolve(base);
    throw new HoneError(
      `The folder ${base} has no config.json: it is not a model in the hub's layout.`,
      {
        code: "invalid_config",
        param: "base",
      },
    );
  }
  throw new HoneError(
    `There is no base model at "${base}". Give a folder, or a hub id such as Qwen/Qwen3-0.6B.`,
    {
      code: "invalid_config",
      param: "base",
    },
  );
}
