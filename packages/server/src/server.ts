import { existsSync, statSync } from "node:fs";
import type { Server } from "node:http";
import { isAbsolute, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { HoneError, type Keep } from "@hone/core";
import { unlessAborted } from "@hone/transport";
import { announce, defaultDataDir, makeFolder, withdraw } from "@hone/transport/node";
import { pino, type Logger } from "pino";
import { shuttingDown } from "./app.ts";
import { compose, type Composition } from "./compose.ts";
import type { ServedBase } from "./served-base.ts";
import type { EngineOptions } from "./engine-options.ts";
import { bucketOf, type BucketPlace } from "./engines/bucket/bucket-place.ts";
import { checkExposure, serverKey } from "./http/key-file.ts";
import { listen } from "./http/listen.ts";
import { isUnspecified, ownAddresses, urlOf } from "./http/own-address.ts";
import { parseRewardModel } from "./scoring/reward-models.ts";
import { findEnvironment } from "./setup/environment.ts";
import { brokenEnvironment } from "./setup/verify.ts";
import { checkEngines } from "./server-engines.ts";
import { lockDataDir, type DataLock } from "./store/lock.ts";
import type { Deadlines } from "./supervise/supervisor.ts";

export interface ServerOptions extends EngineOptions {
  /** A folder, or the id of a model on the hub. */
  base: string;
  /** The name of the bare base. @default the engine's name for it, the hub id, or the folder's name */
  servedName?: string | undefined;
  /** @default 0: any free port */
  port?: number | undefined;
  /** @default 127.0.0.1 */
  host?: string | undefined;
  /** Key, database, checkpoints. @default HONE_HOME, else ~/.hone */
  dataDir?: string | undefined;
  /** @default the base's own */
  maxModelLen?: number | undefined;
  /**
   * Whether the trainer computes a layer's activations again in its backward instead of keeping them: always, never, or
   * where a micro-batch would not fit otherwise. @default auto
   */
  recompute?: "auto" | "on" | "off" | undefined;
  /** The key of all of them. */
  engineKey?: string | undefined;
  /** The interpreter of renderer and worker. @default HONE_PYTHON, else the one that setup made */
  python?: string | undefined;
  /** How messages become tokens. @default auto */
  renderer?: string | undefined;
  /** Sequence classifiers that `POST /v1/score` asks: folder or hub id by name. */
  rewardModels?: Readonly<Record<string, string>> | undefined;
  /** Python files, each with an objective of the operator's own. */
  objectives?: readonly string[] | undefined;
  /** Host names besides the loopback ones under which clients address the server. */
  hosts?: readonly string[] | undefined;
  /** Origins of web pages that may call the server. @default none */
  origins?: readonly string[] | undefined;
  /** How long a child may go without progress. */
  deadlines?: Partial<Deadlines> | undefined;
  /** Silence after which an open rollout expires. @unit ms */
  leaseMs?: number | undefined;
  /** How many of the newest policies of each model stay on disk. @default 10 */
  keep?: Keep | undefined;
  /** What the weights of policies in the engine may take, besides those in use. @unit bytes @default 512 MiB */
  adapterMemory?: number | undefined;
  /**
   * From when on an engine that is not ready for a new policy is fenced, if another engine is ready. Where the first one
   * took long, the others may take twice as long. @unit ms @default 10000
   */
  publishDeadlineMs?: number | undefined;
  /**
   * What an engine's logprobs may differ by from the trainer's when a policy is published: on average over the probe's
   * prompt, and at the token after it. @default 0.001 in float32, 0.2 in bfloat16
   */
  probeTolerance?: number | undefined;
  /**
   * `s3://NAME/PREFIX` of a bucket from which engines that join get adapters, which this server puts there. Its rights are
   * AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION of the environment. @default none
   */
  bucket?: string | undefined;
  /** The URL of a store that is not Amazon's. @default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else Amazon's */
  bucketEndpoint?: string | undefined;
  /** Hears what an operator wants to know before the server is ready, a line each. */
  onNotice?: ((line: string) => void) | undefined;
  /** Gives the start up, and ends what it has started. */
  signal?: AbortSignal | undefined;
  /** @default silent */
  log?: Logger | undefined;
}

export interface RunningServer {
  /** Where clients on this machine reach it, without `/v1`. */
  url: string;
  /** Where clients on other machines reach it; the same as `url` where none can. */
  publicURL: string;
  /** The key that is valid now. It can be changed while the server runs. */
  readonly key: string;
  dataDir: string;
  /** What was taken for the base: its name, type, device and renderer. */
  base: ServedBase;
  /** Lets requests in flight end for a moment, then stops everything that was started. */
  close(): Promise<void>;
}

/** How long requests in flight may go on once the server closes. */
const drainMs = 1_000;

/** Starts a server in this process, with its children. Resolves when it serves. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const log = options.log ?? pino({ level: "silent" });
  const host = options.host ?? "127.0.0.1";
  const dataDir = resolve(options.dataDir ?? defaultDataDir());
  const base = checkModel(options.base, "base");
  const rewardModels = checkRewardModels(options.rewardModels ?? {});
  for (const file of options.objectives ?? []) requireFile(file);
  const engines = checkEngines(options);
  const bucket = bucketOf(options);
  const python = options.python ?? (await findEnvironment());
  makeDataDir(dataDir);
  // From before the key is read until the end: what takes the lock to change something beside a server,
  // such as the key, must not do so while one starts.
  const lock = lockDataDir(dataDir);
  try {
    return await startLocked(
      { ...options, rewardModels, bucket },
      { log, host, dataDir, base, python, engines, lock },
    );
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Leaves nothing running when it throws. The lock is released when the server has closed, or by the caller. */
async function startLocked(
  options: Omit<ServerOptions, "bucket"> & { bucket: BucketPlace | undefined },
  settled: {
    log: Logger;
    host: string;
    dataDir: string;
    base: string;
    python: string;
    engines: ReturnType<typeof checkEngines>;
    lock: DataLock;
  },
): Promise<RunningServer> {
  const { log, host, dataDir, base, python, engines, lock } = settled;
  const port = checkPort(options.port ?? 0);
  const key = serverKey(dataDir);
  checkExposure(host, key.key);
  const device = options.device ?? "cpu";

  let url = "";
  let publicURL = "";
  // Requests by IP address are safe to accept: a web page that was made to resolve here sends its own name instead.
  const own = isUnspecified(host) ? ownAddresses() : [];
  const composition = await compose({
    ...options,
    ...engines,
    given: options,
    base,
    dataDir,
    device,
    python,
    lock,
    hosts: [...(options.hosts ?? []), host, ...own],
    key,
    publicURL: () => publicURL,
    log,
  });
  const server = createAdaptorServer({
    fetch: (request, env) => composition.app.fetch(request, env),
  }) as Server;
  // Longer than clients keep an idle socket, so that none writes to one that we are closing.
  server.keepAliveTimeout = 65_000;
  server.requestTimeout = 0;

  try {
    // Before the children are started: a port that is taken should not cost a minute.
    const listening = await listen(server, port, host);
    url = urlOf(host, listening);
    publicURL = isUnspecified(host) ? urlOf(options.hosts?.[0] ?? own[0] ?? host, listening) : url;
    await unlessAborted(composition.start(), options.signal, shuttingDown);
    announce(dataDir, { url, pid: process.pid, base });
  } catch (error) {
    await closeAll(server, composition);
    if (options.signal?.aborted) throw error;
    throw (await brokenEnvironment(python, error)) ?? error;
  }
  log.info({ url, base, dataDir }, "the server is ready");

  let closing: Promise<void> | undefined;
  return {
    url,
    publicURL,
    get key() {
      return key.key;
    },
    dataDir,
    base: composition.about(),
    close() {
      closing ??= (async () => {
        withdraw(dataDir);
        try {
          await closeAll(server, composition);
        } finally {
          lock.release();
        }
        log.info("the server has stopped");
      })();
      return closing;
    },
  };
}

async function closeAll(server: Server, composition: Composition): Promise<void> {
  composition.refuse();
  if (server.listening) {
    const drained = new Promise<void>((done) => void server.close(() => done()));
    server.closeIdleConnections();
    await Promise.race([drained, delay(drainMs, undefined, { ref: false })]);
    server.closeAllConnections();
  }
  await composition.close();
}

function requireFile(file: string): void {
  if (existsSync(file)) return;
  throw new HoneError(`There is no file ${file} with objectives. Correct its path.`, {
    code: "invalid_config",
    param: "objectives",
  });
}

function checkRewardModels(given: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(given).map(([name, source]) => {
      parseRewardModel(`${name}=${source}`);
      return [name, checkModel(source, "rewardModels")];
    }),
  );
}

/** A folder by its whole path, or a hub id. */
function checkModel(base: string, param: string): string {
  if (existsSync(base)) {
    const folder = resolve(base);
    if (existsSync(join(folder, "config.json"))) return folder;
    throw new HoneError(`${folder} is not a model: it has no config.json.`, {
      code: "invalid_config",
      param,
    });
  }
  const isHubId = /^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith(".");
  if (isHubId) return base;
  throw new HoneError(
    isAbsolute(base) || base.includes("/")
      ? `There is no folder ${resolve(base)}. Give a model's folder, or a hub id such as Qwen/Qwen3-0.6B.`
      : `"${base}" is neither a folder nor a hub id such as Qwen/Qwen3-0.6B.`,
    { code: "invalid_config", param },
  );
}

function makeDataDir(dataDir: string): void {
  makeFolder(dataDir, { what: "data directory", mode: 0o700 });
  const { mode } = statSync(dataDir);
  // Whoever can write into it can put another key or database in the place of ours. Where the sticky bit is set,
  // as on /tmp, nobody can touch what is another's.
  const isShared = (mode & 0o1002) === 0o002;
  if (!isShared) return;
  throw new HoneError(
    `Every user of this machine can write into the data directory ${dataDir}. Run \`chmod 700 ${dataDir}\`, or name another one.`,
    { code: "invalid_config" },
  );
}

function checkPort(port: number): number {
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port;
  throw new HoneError(`A port is a whole number from 0 (any free one) to 65535, not ${port}.`, {
    code: "invalid_config",
    param: "port",
  });
}
