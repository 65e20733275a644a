import { join, resolve } from "node:path";
import { HoneError } from "@hone/core";
import type { ChildRegister } from "../supervise/orphans.ts";
import type { Deadlines } from "../supervise/supervisor.ts";
import { createHttpEngine, type HttpEngine } from "./http-engine.ts";
import { keepRemoteEngine, keepVllm, type KeptEngine, type Keeping } from "./kept-engine.ts";
import { vllmChild } from "./vllm/child.ts";
import { cardsOf, givenFlag } from "./vllm/flags.ts";

export interface RemoteEngines {
  engines: readonly { url: string; engine: HttpEngine }[];
  /** What they call the bare base. */
  base?: string | undefined;
  /** The shortest of theirs. @unit tokens */
  maxModelLen?: number | undefined;
}

/** Asks engines that others run what they serve, which has to be one base. */
export async function connectEngines(
  urls: readonly string[],
  key: string | null,
): Promise<RemoteEngines> {
  const engines = urls.map((url) => ({
    url,
    engine: createHttpEngine({ kind: "vllm", baseURL: () => url, key: () => key }),
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
  /** The highest rank of the models that there are; 0 without any. */
  maxLoraRank: () => number;
  dataDir: string;
  children: ChildRegister;
  deadlines?: Partial<Deadlines> | undefined;
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
      const { dataDir, children, deadlines, ...options } = vllm as VllmReplicas;
      const name = nameOf(remotes.engines.length + at);
      const child = vllmChild({
        ...options,
        env:
          options.device === "cuda"
            ? { CUDA_VISIBLE_DEVICES: cardsOfReplica(at, cardsOf(options.flags)) }
            : {},
      });
      return keepVllm({
        ...keeping,
        name,
        maxSequences: Number(givenFlag(options.flags, "--max-num-seqs")) || undefined,
        child: {
          ...child,
          name: count === 1 ? child.name : `${child.name} (${name})`,
          onSpawn: (pid) => children.note(name, pid),
          logFile: join(resolve(dataDir), "logs", `${name}.log`),
          deadlines,
        },
      });
    }),
  ];
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
