import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Writable } from "node:stream";
import OpenAI from "openai";
import { pino, type Logger } from "pino";
import { gather, type Model, type RolloutModel } from "@hone/client";
import type { EngineInfo } from "@hone/core";
import { startCli } from "../../../packages/server/src/testing/run-cli.ts";
import {
  spoken,
  testBase,
  trainedAdapters,
} from "../../../packages/server/src/testing/running-engine.ts";
import { startTestServer, type TestServer } from "../../support/server.ts";
import { vllmOf, type VllmProcesses } from "./processes.ts";
import { startTraffic, type StreamsUnderWay } from "./traffic.ts";

export type Cli = ReturnType<typeof startCli>;

/** How an operation ended, and after how long. */
export interface Done {
  status: string;
  error?: string;
  /** @unit s */
  seconds: number;
}

/** A server with a vLLM of its own and one that joined, under traffic: the policies of `m` say one token each. */
export interface Setting {
  server: TestServer;
  /** While it is so, the vLLM that joined answers completions with 200 and no token. */
  silence(is: boolean): void;
  /** The engine that joined, as long as it runs. */
  sidecar(): Cli;
  /** Starts it again, as a service manager does. */
  startSidecar(): Promise<void>;
  /** Where it keeps its key and its adapters. */
  sidecarFolder: string;
  /** A join token for one engine more. */
  joinToken(): Promise<string>;
  /** One engine more, which joins. It ends with the setting, if it has not before. */
  join(name: string): Promise<Cli>;
  traffic: StreamsUnderWay;
  /** A policy that says the other token: an operation of the real server. */
  publish(): Promise<Done>;
  importFolder(folder: string): Promise<Done>;
  /** One of the folders of the fixtures, where it may be imported from; it may be damaged. */
  adapterCopy(of?: "say" | "bad-shape" | "bad-rank"): string;
  /** The server's base but for one bit. */
  otherBase(): string;
  engine(name: string): Promise<EngineInfo>;
  component(name: string): Promise<{ state: string; pid?: number; restarts?: number }>;
  vllm(name: typeof ownName | typeof joinedName): VllmProcesses;
  /** Warnings and errors that the server has logged, or the sidecar of the engine that joined since it was started. */
  logged(of: typeof ownName | typeof joinedName): string[];
  /** One step of a model of its own: rollouts on whatever engine takes them, training, publication. */
  trainStep(): Promise<string>;
  close(): Promise<void>;
}

export const joinedName = "joined";
export const ownName = "engine";
const streams = 4;

export async function startSetting(
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<Setting> {
  const folder = mkdtempSync(join(tmpdir(), "hone-vllm-faults-"));
  const undo: (() => unknown)[] = [
    () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }),
  ];
  const close = async (): Promise<void> => {
    for (const one of undo.splice(0).toReversed()) await one();
  };
  try {
    return { ...(await start(folder, undo, log, signal)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function start(
  folder: string,
  undo: (() => unknown)[],
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<Omit<Setting, "close">> {
  const adapters = await trainedAdapters();
  const dataDir = join(folder, "server");
  const imports = join(dataDir, "imports");
  mkdirSync(imports, { recursive: true });
  for (const token of Object.values(spoken)) {
    cpSync(join(adapters, `say-${token}`), join(imports, `say-${token}`), { recursive: true });
  }
  log("the server starts its vLLM");
  const kept = keepLog();
  const server = await startTestServer(dataDir, {
    ...{ engine: "vllm", maxModelLen: 512, log: kept.log, signal },
  });
  undo.push(() => server.close());
  const sidecarFolder = join(folder, "joined");
  let sidecar: Cli;
  let copies = 0;

  const json = async (path: string, method = "GET", body?: unknown): Promise<unknown> => {
    const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
    const response = await server.fetch(path, init);
    const text = await response.text();
    // A server with a part that is away answers 503 and says which.
    if (!response.ok && path !== "/health")
      throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  };

  const silent = join(folder, "silent");

  async function joinToken(): Promise<string> {
    return ((await json("/v1/engines/tokens", "POST", {})) as { token: string }).token;
  }

  const sidecarArgs = (name: string): string[] => [
    ...["engine", "--join", server.url, "--name", name, "--base", testBase],
    ...["--data-dir", join(folder, name), "--max-loras", "6"],
  ];
  const sidecarEnv = async (): Promise<Record<string, string>> => ({
    ...{ HONE_JOIN_TOKEN: await joinToken(), OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" },
  });

  async function startSidecar(): Promise<void> {
    sidecar = startCli(sidecarArgs(joinedName), {
      ...(await sidecarEnv()),
      ...{ PYTHONPATH: join(import.meta.dirname, "silence"), HONE_TEST_SILENCE: silent },
    });
  }

  async function joinAs(name: string): Promise<Cli> {
    const one = startCli(sidecarArgs(name), await sidecarEnv());
    undo.push(() => (one.child.exitCode === null ? endSidecar(one) : undefined));
    return one;
  }

  async function importFolder(path: string): Promise<Done> {
    const began = performance.now();
    const made = (await json("/v1/models/m/operations", "POST", {
      ...{ clientToken: `import-${++copies}-${Date.now()}`, op: { type: "import", path } },
    })) as { id: string };
    for (;;) {
      const now = (await json(`/v1/operations/${made.id}`)) as {
        status: string;
        error?: { code: string; message: string } | null;
      };
      if (!["queued", "running"].includes(now.status)) {
        const { status, error } = now;
        const seconds = (performance.now() - began) / 1000;
        return { status, ...(error && { error: `${error.code}: ${error.message}` }), seconds };
      }
      await delay(100, undefined, { signal });
    }
  }

  async function publish(): Promise<Done> {
    const { learnt } = (await json("/v1/models/m/state")) as { learnt: number };
    return await importFolder(join(imports, `say-${tokenOf(learnt + 1)}`));
  }

  log("an engine joins");
  await startSidecar();
  undo.push(() => endSidecar(sidecar));
  const engine = async (name: string): Promise<EngineInfo> => {
    const { data } = (await json("/v1/engines")) as { data: EngineInfo[] };
    const found = data.find((one) => one.name === name);
    if (found) return found;
    throw new Error(`there is no engine ${name}`);
  };
  for (;;) {
    const now = await engine(joinedName).catch(() => null);
    if (now?.state === "serving") break;
    if (sidecar!.child.exitCode !== null) throw new Error((await sidecar!.ended).error);
    await delay(500, undefined, { signal });
  }
  const words = await server.hone.model({ name: "words" });
  await server.hone.model({ name: "m", lora: { r: 8, alpha: 16 } });
  const first = await publish();
  if (first.status !== "succeeded") throw new Error(`nothing could be published: ${first.error}`);
  const traffic = startTraffic({ url: server.url, key: server.key, streams, tokenOf });
  undo.push(() => traffic.stop());

  return {
    ...{ server, sidecarFolder, traffic, startSidecar, joinToken, publish, importFolder },
    join: joinAs,
    sidecar: () => sidecar,
    adapterCopy(of = "say") {
      const copy = join(imports, `copy-${++copies}`);
      const from = of === "say" ? `say-${spoken.b}` : of;
      cpSync(join(adapters, from), copy, { recursive: true });
      return copy;
    },
    otherBase() {
      const copy = join(folder, `base-${++copies}`);
      cpSync(testBase, copy, { recursive: true });
      damage(join(copy, "model.safetensors"), "flip");
      return copy;
    },
    silence(is) {
      if (is) writeFileSync(silent, "");
      else rmSync(silent, { force: true });
    },
    engine,
    async component(name) {
      const { components } = (await json("/health")) as { components: Record<string, never> };
      return components[name]!;
    },
    vllm: (name) => vllmOf(name === ownName ? process.pid : sidecar.child.pid!),
    logged: (of) => (of === ownName ? [...kept.lines] : linesOf(sidecar.errorOutput())),
    trainStep: () => trainStep(words),
  };
}

/** Also one that is stopped, and one that does not obey. */
async function endSidecar({ child, ended }: Cli): Promise<void> {
  child.kill("SIGCONT");
  child.kill("SIGTERM");
  // The second one does not wait for requests.
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 30_000);
  await ended;
  clearTimeout(late);
}

/** What policy m@N says. */
const tokenOf = (step: number): number => (step % 2 === 1 ? spoken.a : spoken.b);

function keepLog(): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const stream = new Writable({
    write(text: Buffer, _, done) {
      lines.push(...linesOf(text.toString()));
      done();
    },
  });
  return { log: pino({ level: "warn" }, stream), lines };
}

/** The messages of a log, with the reasons that stand beside them. */
function linesOf(log: string): string[] {
  return log.split("\n").flatMap((line) => {
    if (!line.startsWith("{")) return [];
    try {
      const { msg, reason, why, err } = JSON.parse(line) as Record<string, string> & {
        err?: { message?: string };
      };
      return [[msg, reason ?? why ?? err?.message].filter(Boolean).join(": ")];
    } catch {
      return [];
    }
  });
}

async function trainStep(model: Model): Promise<string> {
  const play = async (rollout: RolloutModel): Promise<{ reward: number }> => {
    const connection = rollout.connection();
    const completion = await new OpenAI(connection).chat.completions.create({
      ...{ model: connection.model, max_tokens: 4 },
      messages: [{ role: "user", content: "Say a word." }],
    });
    return { reward: completion.choices[0]?.message.content?.length ?? 0 };
  };
  const groups = await gather(model, play, [{}], { groupSize: 8, concurrency: 4 });
  const options = { learningRate: 1e-3, warmupSteps: 0, normalizerTokens: 8 };
  const { policy, trained, reasons } = await model.train(groups, options);
  return trained ? policy : `nothing trained: ${JSON.stringify(reasons)}`;
}

/** Damages the weights of an adapter's folder, or any other file. */
export function damage(file: string, how: "flip" | "cut" | "nan"): void {
  let bytes = readFileSync(file);
  // The mantissa of the last number: a value that is finite and nearly the same.
  if (how === "flip") bytes[bytes.length - 3]! ^= 0x01;
  if (how === "cut") bytes = bytes.subarray(0, bytes.length - 100);
  if (how === "nan") bytes.writeFloatLE(NaN, bytes.length - 8);
  writeFileSync(file, bytes);
}
