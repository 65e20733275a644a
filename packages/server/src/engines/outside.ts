import { join, resolve } from "node:path";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { cardMemory } from "../setup/nvidia.ts";
import type { ChildRegister } from "../supervise/orphans.ts";
import type { Deadlines } from "../supervise/supervisor.ts";
import { createHttpEngine, type HttpEngine } from "./http-engine.ts";
import { keepRemoteEngine, keepVllm, type KeptEngine, type Keeping } from "./kept-engine.ts";
import { guardCards, type CardGuard } from "./vllm/card-memory.ts";
import { slotsMemory, vllmChild } from "./vllm/child.ts";
import { cardsOf, sequencesOf } from "./vllm/flags.ts";
import { createEngineSleep, type EngineSleep, type EngineSleepOptions } from "./vllm/sleep.ts";

export interface RemoteEngines {
  engines: readonly { url: string; engine: HttpEngine; maxSequences?: number | undefined }[];
  /** What they call the bare base. */
  base?: string | undefined;
  /** The shortest of theirs. @unit tokens */
  maxModelLen?: number | undefined;
}

/** Engines that others run. */
export interface EnginesByURL {
  engineURLs?: readonly string[] | undefined;
  /** The key of all of them. */
  engineKey?: string | undefined;
  /** How many sequences each of them batches (`--max-num-seqs`), where the operator says so. */
  engineMaxSequences?: number | undefined;
}

/** Asks engines that others run what they serve, which has to be one base. */
export async function connectEngines(options: EnginesByURL): Promise<RemoteEngines> {
  const { engineURLs: urls = [], engineKey: key, engineMaxSequences } = options;
  const engines = urls.map((url) => ({
    ...{ url, maxSequences: engineMaxSequences },
    engine: createHttpEngine({ kind: "vllm", baseURL: () => url, key: () => key ?? null }),
  }));
  const infos = await Promise.all(
    engines.map(({ url, engine }) =>
      engine.info().catch((cause: unknown) => Promise.reject(noEngine(url, cause))),
    ),
  );
  const [first, ...rest] = infos;
  if (!first) return { engines };
  rest.forEach(({ base }, at) => {
    if (base === first.base) return;
    const [one, other] = [urls[0] ?? "", urls[at + 1] ?? ""].map(originOf);
    throw new HoneError(
      `The engine at ${one} serves "${first.base}", the one at ${other} "${base}". Start all with the same base and the same --served-model-name.`,
      { code: "invalid_config", param: "engineURL" },
    );
  });
  return {
    engines,
    base: first.base,
    maxModelLen: Math.min(...infos.map(({ maxModelLen }) => maxModelLen)),
  };
}

export interface VllmReplicas {
  python: string;
  /** How many, each on cards of its own where there are cards. */
  replicas: number;
  flags: readonly string[];
  base: string;
  servedName: string;
  device: "cpu" | "cuda";
  dtype: "float32" | "bfloat16";
  maxModelLen?: number | undefined;
  /** What the trainer has and needs of its card, once it has started; null before. */
  trainer: () => { base: number; step: number } | null;
  /** Hears what an operator wants to see before a vLLM is started. */
  tell: (line: string) => void;
  /** The highest rank of the models that there are; 0 without any. */
  maxLoraRank: () => number;
  /** How many policies each samples from at a time. */
  maxLoras: () => number;
  dataDir: string;
  children: ChildRegister;
  deadlines?: Partial<Deadlines> | undefined;
  /** The pool, where the one replica sleeps while a step trains. @default it does not */
  sleepsIn?: EngineSleepOptions["pool"] | undefined;
}

/** The engines besides the worker, in one list, with a name for each. None where the worker generates. */
export function keepEngines(
  remotes: RemoteEngines,
  vllm: VllmReplicas | null,
  keeping: Omit<Keeping, "name">,
): KeptEngine[] {
  const count = remotes.engines.length + (vllm?.replicas ?? 0);
  const nameOf = (at: number): string => (count === 1 ? "engine" : `engine-${at + 1}`);
  return [
    ...remotes.engines.map((remote, at) =>
      keepRemoteEngine({ ...keeping, ...remote, name: nameOf(at) }),
    ),
    ...Array.from({ length: vllm?.replicas ?? 0 }, (_, at) => {
      const { dataDir, children, deadlines, sleepsIn, ...options } = vllm as VllmReplicas;
      const name = nameOf(remotes.engines.length + at);
      const title = count === 1 ? "vLLM" : `vLLM (${name})`;
      const onCards = options.device === "cuda";
      const guard = guardOf(at, title, options, keeping.log);
      const cards = cardsOfReplica(at, cardsOf(options.flags)).split(",");
      const sleep: EngineSleep | undefined = sleepsIn
        ? createEngineSleep({
            ...{ name, pool: sleepsIn, log: keeping.log },
            engine: () => ({ baseURL: kept.requireUp(), key: kept.key() }),
            doubt: () => kept.onFenced(),
            freeBytes: () => leastFree(cards),
          })
        : undefined;
      const child = vllmChild({
        ...options,
        sleeps: sleep !== undefined,
        env: onCards ? { CUDA_VISIBLE_DEVICES: cardsOfReplica(at, cardsOf(options.flags)) } : {},
        memoryShare: () => guard?.share() ?? null,
      });
      const kept = keepVllm({
        ...keeping,
        name,
        sleep,
        maxSequences: sequencesOf(options.flags),
        child: {
          ...child,
          name: title,
          async beforeStart(signal) {
            await sleep?.untilStepOver(signal);
            await guard?.beforeStart(signal);
          },
          onSpawn: (pid) => children.note(name, pid),
          logFile: join(resolve(dataDir), "logs", `${name}.log`),
          deadlines,
        },
      });
      return { ...kept, sleep };
    }),
  ];
}

/** What is free on the one of these cards that has the least; null where nobody says. */
async function leastFree(cards: readonly string[]): Promise<number | null> {
  const all = await Promise.all(cards.map(cardMemory));
  const free = all.flatMap((one) => (one ? [one.free] : []));
  return free.length === 0 || free.length < cards.length ? null : Math.min(...free);
}

/** Decides what a replica takes of its cards. The trainer is on the first card of all. */
function guardOf(
  at: number,
  name: string,
  options: Omit<VllmReplicas, "dataDir" | "children" | "deadlines">,
  log: Logger,
): CardGuard | null {
  const cardsEach = cardsOf(options.flags);
  const cards = cardsOfReplica(at, cardsEach);
  const isOnMine = (replica: number): boolean =>
    cardsOfReplica(replica, cardsEach)
      .split(",")
      .some((card) => cards.split(",").includes(card));
  const engines = Array.from({ length: options.replicas }, (_, one) => one).filter(isOnMine).length;
  const withTrainer = cards.split(",").includes(cardsOfReplica(0, 1));
  return guardCards({
    ...{ device: options.device, flags: options.flags, name, cards: cards.split(",") },
    needs: () => {
      const { base, step } = options.trainer() ?? { base: 0, step: 0 };
      const slots = slotsMemory(options);
      return { base: base / cardsEach, step: withTrainer ? step : 0, engines, slots };
    },
    ...{ tell: options.tell, log },
  });
}

/** The replica's cards, so many: of those that the operator allows, in turn. */
export function cardsOfReplica(
  at: number,
  count: number,
  allowed = process.env["CUDA_VISIBLE_DEVICES"],
): string {
  const cards = (allowed ?? "").split(",").filter(Boolean);
  const card = (nth: number): string =>
    cards.length > 0 ? (cards[nth % cards.length] as string) : String(nth);
  return [...new Set(Array.from({ length: count }, (_, nth) => card(at * count + nth)))].join(",");
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
