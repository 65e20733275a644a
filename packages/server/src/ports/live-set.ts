import type { Quantize } from "./trainer.ts";

/** An adapter as engines have to serve it: the files of one policy, by what they hold and not only by where they lie. */
export interface LiveAdapter {
  /** `name@N`. The name under which an import is tried has a suffix, and is no policy's. */
  policy: string;
  /** The folder with `adapter_config.json` and `adapter_model.safetensors`, on the server's disk. */
  path: string;
  /** SHA-256 of `adapter_model.safetensors`, in hexadecimal digits. */
  sha256: string;
  /** Of `adapter_model.safetensors`. @unit bytes */
  bytes: number;
  rank: number;
  /** What an engine has to answer with it. None of checkpoints from before there were probes. */
  probe?: Probe | undefined;
}

/** What the trainer computes for a short text, so that an engine's answers show whether it serves the same weights. */
interface Probe {
  /** A prompt of token ids that every answer of the base's vocabulary could begin with. */
  ids: readonly number[];
  /** With the adapter. */
  policy: ProbeAnswer;
  /** Without it. Where both are alike, the probe cannot tell the adapter from none. */
  base: ProbeAnswer;
}

/** Logprobs at temperature 1. */
interface ProbeAnswer {
  /** Of each token of the prompt but the first. */
  prompt: readonly number[];
  /** Of the likeliest token after the prompt. */
  next: number;
}

/** What all engines of a server sample from. */
export interface LiveBase {
  name: string;
  dtype: "float32" | "bfloat16";
  quantize?: Quantize | null | undefined;
}

/** What every engine that takes traffic serves. */
export interface LiveSet {
  /** Grows with each change of `adapters`. */
  generation: number;
  base: LiveBase;
  adapters: readonly LiveAdapter[];
}
