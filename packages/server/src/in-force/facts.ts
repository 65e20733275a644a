import type { EngineInfo, Keep } from "@hone/core";
import type { EngineOptions } from "../engine-options.ts";
import type { Machine } from "./machine.ts";

/** What the operator gave, and nothing where the default holds. */
export interface GivenOptions extends EngineOptions {
  servedName?: string | undefined;
  host?: string | undefined;
  port?: number | undefined;
  maxModelLen?: number | undefined;
  recompute?: "auto" | "on" | "off" | undefined;
  renderer?: string | undefined;
  rewardModels?: Readonly<Record<string, string>> | undefined;
  objectives?: readonly string[] | undefined;
  hosts?: readonly string[] | undefined;
  origins?: readonly string[] | undefined;
  keep?: Keep | undefined;
  /** @unit bytes */
  adapterMemory?: number | undefined;
  publishDeadlineMs?: number | undefined;
  probeTolerance?: number | undefined;
  deadlines?: { trainingMs?: number | undefined } | undefined;
}

/** What is the case now, beside what was given. */
export interface Facts {
  given: GivenOptions;
  /** On which the server listens. */
  port: number;
  machine: Machine;
  /** What was taken for the base. */
  base: {
    name: string;
    dtype: "float32" | "bfloat16";
    renderer: string;
    /** @unit tokens */
    maxModelLen: number;
  };
  /** Of the worker: base, keys and values, a micro-batch, a step beside an engine on one card. @unit bytes */
  memory: { base: number; kv_cache: number; trainer: number; step: number } | null;
  models: {
    /** Those that are played or trained now, of this base. */
    inUse: number;
    /** 0 without any. */
    highestRank: number;
    /** Weights of each live policy. @unit bytes */
    live: readonly number[];
  };
  engines: readonly (Pick<EngineInfo, "name" | "state" | "reason" | "joined"> & {
    /** How often it was late or wrong at a publication. */
    fences: number;
  })[];
  /** How many policies a vLLM of this server's samples from at a time, as it was started; null without one. */
  slots: number | null;
  /** Conversations that the embedded engine has let go of for want of memory. */
  evicted: number;
  /** Steps that vLLM has slept through, and those for which it stayed awake; null where it does not sleep. */
  sleep: { slept: number; stayedAwake: number } | null;
  bucket: {
    place: string;
    origin: string;
    state: string;
    reason?: string;
    fallbacks: number;
  } | null;
}
