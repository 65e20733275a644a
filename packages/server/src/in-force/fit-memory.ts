import { givenFlag, cardsOf } from "../engines/vllm/flags.ts";
import { defaultAdapterMemory } from "../policies/live.ts";
import type { Facts } from "./facts.ts";
import type { Rule } from "./rule.ts";

const gibibyte = 1024 ** 3;
const mebibyte = 1024 ** 2;
/** A policy on the disk: its adapter, and two moments of each weight. */
const filesPerPolicy = 3;
/** So many more policies should have room. */
const roomFor = 10;

export const memoryRules: readonly Rule[] = [
  (facts) => {
    const { given, machine, memory } = facts;
    if ((given.device ?? "cpu") === "cuda" || !memory) return null;
    const bases = given.engineProcess === "own" ? 2 : 1;
    const ofVllm = given.engine === "vllm" ? (given.replicas ?? 1) * (memory.base + gibibyte) : 0;
    const needed = memory.base * bases + memory.kv_cache + memory.trainer + ofVllm;
    if (needed <= machine.memory) return null;
    const parts = [
      `the base ${bases === 2 ? "twice " : ""}${shown(memory.base * bases)}`,
      ...(memory.kv_cache > 0 ? [`keys and values ${shown(memory.kv_cache)}`] : []),
      `a micro-batch ${shown(memory.trainer)}`,
      ...(ofVllm > 0 ? [`vLLM ${shown(ofVllm)}`] : []),
    ];
    const options = [
      ...(bases === 2 ? ["--engine-process"] : []),
      ...(ofVllm > 0 ? ["--replicas"] : ["--kv-cache-mib", "--engine-share"]),
    ];
    return {
      ...{ options, verdict: "misfit" },
      message: `They take ${shown(needed)} (${parts.join(", ")}), and this machine has ${shown(machine.memory)}. Give less, or a process will be ended for want of memory.`,
    };
  },

  ({ given, machine, memory }) =>
    given.sleep && memory && memory.base > machine.memory
      ? {
          ...{ options: ["--sleep"], verdict: "misfit" },
          message: `While vLLM sleeps, its ${shown(memory.base)} of weights are in the machine's memory, which has ${shown(machine.memory)}. Leave it out.`,
        }
      : null,

  ({ evicted }) =>
    evicted > 0
      ? {
          ...{ options: ["--kv-cache-mib", "--engine-share"], verdict: "hint" },
          message: `${evicted} conversations were let go of for want of memory, and are computed anew at their next turn. Give the engine more, or play fewer rollouts at a time.`,
        }
      : null,

  ({ given, machine, memory }) => {
    const share = Number(givenFlag(given.vllmFlags ?? [], "--gpu-memory-utilization"));
    const [first] = machine.cards;
    if (given.engine !== "vllm" || given.device !== "cuda" || !(share > 0) || !first) return null;
    const onFirst = vllmsOnOneCard(given, machine.cards.length);
    const trainer = memory ? memory.base + memory.step : 0;
    const needed = share * onFirst * first.total + trainer;
    if (needed <= first.total) return null;
    return {
      options: ["--", ...(onFirst > 1 ? ["--replicas"] : [])],
      verdict: "misfit",
      message: `--gpu-memory-utilization ${share}${onFirst > 1 ? `, ${onFirst} times,` : ""} and the trainer's ${shown(trainer)} are ${shown(needed)}, and the card has ${shown(first.total)}. Leave the flag out: the server computes what is left for vLLM.`,
    };
  },

  ({ given, models }) => {
    const memory = given.adapterMemory ?? defaultAdapterMemory;
    const total = models.live.reduce((sum, bytes) => sum + bytes, 0);
    const largest = Math.max(0, ...models.live);
    if (largest * 2 > memory) {
      return {
        ...{ options: ["--adapter-memory"], verdict: "hint" },
        message: `A policy takes ${shown(largest)}, so ${shown(memory)} hold no two of them: after each publication the one before is unloaded as soon as no rollout holds it, and loaded again for whoever asks. Give ${Math.ceil((largest * 4) / mebibyte)}.`,
      };
    }
    if (total <= memory) return null;
    return {
      ...{ options: ["--adapter-memory"], verdict: "hint" },
      message: `The live policies take ${shown(total)}, more than ${shown(memory)}, because rollouts hold them.`,
    };
  },

  ({ given, machine, models }) => {
    const each = Math.max(0, ...models.live) * filesPerPolicy;
    if (machine.freeDisk === null || machine.freeDisk > each * roomFor) return null;
    return {
      ...{ options: ["--keep"], verdict: "misfit" },
      message: `The data directory's disk has ${shown(machine.freeDisk)} left, and a policy takes about ${shown(each)}. Free some space${given.keep === "all" ? ", or keep fewer than all" : ""}: \`hone gc --dry-run\` shows what could go.`,
    };
  },
];

/** How many vLLMs share a card, at most. */
export function vllmsOnOneCard(given: Facts["given"], cards: number): number {
  const wanted = (given.replicas ?? 1) * cardsOf(given.vllmFlags ?? []);
  return cards === 0 ? 0 : Math.ceil(wanted / cards);
}

function shown(bytes: number): string {
  return bytes >= gibibyte
    ? `${(bytes / gibibyte).toFixed(1)} GiB`
    : `${Math.round(bytes / mebibyte)} MiB`;
}
