// The stories that `npm run quickstart` tells: what each trains, and on which base.
import { readFileSync } from "node:fs";

/**
 * @typedef {object} Example
 * @property {string} task
 * @property {string} base folder, or the name of a model that `setup --model` brings
 * @property {boolean} large worth bfloat16 where the processor has it
 */

/** What `setup --model` brings. */
export const broughtModels = ["smollm2"];

/** @type {Record<string, Example>} */
export const examples = {
  2048: {
    task: "examples/2048/src/task.ts",
    base: "models/hone-2048-1m",
    large: false,
  },
  email: {
    task: "examples/email-agent/src/task.ts",
    base: "models/hone-email-1m",
    large: false,
  },
  inbox: {
    task: "examples/inbox/src/task.ts",
    base: "smollm2",
    large: true,
  },
};

/**
 * More options of `serve`. A base of the user's own is taken for large; a GPU's number format is the server's.
 *
 * @param {Example} example
 * @param {{ base: string | null, device: string | null }} chosen
 */
export function servedWith(example, { base, device }) {
  if (device !== null && device !== "cpu") return ["--device", device];
  const large = example.large || base !== null;
  return large ? ["--dtype", hasBfloat16() ? "bfloat16" : "float32"] : [];
}

/** Whether the processor multiplies bfloat16 itself; where it does not, float32 is faster. */
function hasBfloat16() {
  try {
    return /\b(avx512_bf16|amx_bf16|bf16)\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return false;
  }
}
