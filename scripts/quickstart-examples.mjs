// The stories that `npm run quickstart` tells: what each trains, and on which base.
import { readFileSync } from "node:fs";

/**
 * @typedef {object} Example
 * @property {string} program
 * @property {string} base folder, or the name of a model that `setup --model` brings
 * @property {boolean} brought by `setup --model`
 * @property {() => string[]} serve more options of `serve`
 */

/** @type {Record<string, Example>} */
export const examples = {
  2048: {
    program: "examples/2048/src/train.ts",
    base: "models/hone-2048-1m",
    brought: false,
    serve: () => [],
  },
  inbox: {
    program: "examples/inbox/src/train.ts",
    base: "smollm2",
    brought: true,
    serve: () => ["--dtype", hasBfloat16() ? "bfloat16" : "float32"],
  },
};

/** Whether the processor multiplies bfloat16 itself; where it does not, float32 is faster. */
function hasBfloat16() {
  try {
    return /\b(avx512_bf16|amx_bf16|bf16)\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return false;
  }
}
