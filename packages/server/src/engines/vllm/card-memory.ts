import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { cardMemory, type CardMemory } from "../../setup/nvidia.ts";
import { givenFlag } from "./flags.ts";

/** What has to be on a card, in bytes. */
export interface CardNeeds {
  /** The base's weights, of which vLLM holds a copy. */
  base: number;
  /** What a step of the trainer takes besides its base, which is there already. 0 where it is on another card. */
  step: number;
  /** vLLMs that share what is left. */
  engines: number;
  /** What each vLLM allocates at its start for all policies that it samples from at a time. @default 0 */
  slots?: number | undefined;
}

const gibibyte = 1024 ** 3;
/** A little below vLLM's own default of .92: what its kernels allocate outside of its plan has to fit, too. */
const mostShare = 0.9;
/** Contexts of CUDA, and what allocators round up. */
const spared = { least: gibibyte, share: 0.02 };
/** Besides weights and slots: activations, graphs, and keys and values for a few requests. */
const leastWorkspace = 2 * gibibyte;
/** How long what a server before this one held may take to become free. @unit ms */
const firstFreeMs = 10_000;

/**
 * The share of a card's memory that vLLM may take (`--gpu-memory-utilization`), in whole hundredths, from what is free
 * on it once the trainer holds its base. Throws `invalid_config` where that is too little for vLLM.
 */
export function memoryShare({ total, free }: CardMemory, needs: CardNeeds): number {
  const left = (free - needs.step - Math.max(spared.least, spared.share * total)) / needs.engines;
  const share = Math.min(mostShare, Math.floor((100 * left) / total) / 100);
  const slots = needs.slots ?? 0;
  const least = needs.base + slots + leastWorkspace;
  if (share * total >= least) return share;
  const isShared = needs.step > 0;
  const steps = isShared ? `, a step of the trainer takes ${inGib(needs.step)}` : "";
  const many = needs.engines > 1 ? ` each of ${needs.engines} vLLMs` : " vLLM";
  const policies = slots > 0 ? `, ${inGib(slots)} for policies,` : "";
  const [what, instead] = isShared
    ? ["too small for both", "Use the embedded engine, which shares the trainer's base, "]
    : [
        "too full",
        "nvidia-smi names the processes that hold the rest: end what is not needed. Or take ",
      ];
  throw new HoneError(
    `The card is ${what}: of ${inGib(total)}, ${inGib(free)} are free${steps}, and${many} needs at least ` +
      `${inGib(least)} (the base${policies} and 2 GiB to work with). ${instead}` +
      "a smaller base, or another card for vLLM; or say yourself what it takes: -- --gpu-memory-utilization 0.4",
    { code: "invalid_config", param: "engine" },
  );
}

/** For a vLLM with these flags; null where it is on no card, or the operator has decided what its keys and values take. */
export function guardCards(
  options: { device: "cpu" | "cuda"; flags: readonly string[] } & Pick<
    CardGuardOptions,
    "name" | "cards" | "needs" | "tell" | "log"
  >,
): CardGuard | null {
  const { device, flags, ...rest } = options;
  // With its own word on keys and values, vLLM does not look at its share.
  const decides = givenFlag(flags, "--kv-cache-memory-bytes") === undefined;
  if (device !== "cuda" || !decides) return null;
  const given = Number(givenFlag(flags, "--gpu-memory-utilization"));
  return createCardGuard({ ...rest, readCard: cardMemory, given: given > 0 ? given : null });
}

export interface CardGuardOptions {
  /** For messages: "vLLM (engine-2)". */
  name: string;
  cards: readonly string[];
  readCard: (card: string) => Promise<CardMemory | null>;
  /** What the operator gave; null where it is to be computed. */
  given: number | null;
  needs: () => CardNeeds;
  /** Hears what an operator wants to see before vLLM is started. */
  tell: (line: string) => void;
  /** How long the memory may take to become free. @unit ms @default 60000 */
  freeMs?: number | undefined;
  pollMs?: number | undefined;
  log: Logger;
}

/** Sees to it that a vLLM is only started where its memory is free, and decides how much that is. */
export interface CardGuard {
  /** Null before the first start, where vLLM's own default holds, and where the operator has decided it. */
  share(): number | null;
  /** To be awaited before each start. What an earlier process held may take a while to become free. */
  beforeStart(signal: AbortSignal): Promise<void>;
}

export function createCardGuard(options: CardGuardOptions): CardGuard {
  const { name, cards, given, needs, tell, log } = options;
  const pollMs = options.pollMs ?? 500;
  const freeMs = options.freeMs ?? 60_000;
  let share: number | null = null;
  let starts = 0;
  let isTold = false;

  /** Of all its cards the one with the least free; null where one of them is not known. */
  async function tightest(): Promise<(CardMemory & { card: string }) | null> {
    const all = await Promise.all(
      cards.map(async (card) => {
        const memory = await options.readCard(card);
        return memory && { ...memory, card };
      }),
    );
    const known = all.filter((one) => one !== null);
    const [first, ...rest] = known;
    if (!first || known.length < cards.length) return null;
    return rest.reduce((least, one) => (one.free < least.free ? one : least), first);
  }

  function decide(memory: CardMemory): void {
    const wanted = needs();
    share = memoryShare(memory, wanted);
    const steps = wanted.step > 0 ? `, ${inGib(wanted.step)} for a step of the trainer` : "";
    tell(
      `${name} gets ${share} of its card: ${inGib(share * memory.total)} of ${inGib(memory.total)}, of which ` +
        `${inGib(memory.free)} are free${steps}. -- --gpu-memory-utilization decides it instead`,
    );
  }

  /** The last reading, in which enough is free or after which it was too late. */
  async function untilFree(
    wanted: number,
    limitMs: number,
    signal: AbortSignal,
  ): Promise<(CardMemory & { card: string }) | null> {
    const until = performance.now() + limitMs;
    for (;;) {
      const memory = await tightest();
      if (!memory || memory.free >= wanted * memory.total || performance.now() >= until)
        return memory;
      await delay(pollMs, undefined, { signal });
    }
  }

  return {
    share: () => share,

    async beforeStart(signal) {
      // Nothing of this server's was there before the first start.
      const limitMs = starts++ === 0 ? Math.min(freeMs, firstFreeMs) : freeMs;
      if (share === null && given === null) {
        const memory = await tightest();
        if (memory) decide(memory);
      }
      const wanted = given ?? share;
      const memory = wanted === null ? null : await untilFree(wanted, limitMs, signal);
      if (wanted === null || !memory) {
        if (isTold) return;
        isTold = true;
        log.warn(
          { cards },
          `nvidia-smi does not say what is free on the card of ${name}: it is started without knowing` +
            (given === null ? ", with vLLM's own --gpu-memory-utilization" : ""),
        );
        return;
      }
      if (memory.free >= wanted * memory.total) return;
      const held = tooFull(name, memory, wanted);
      if (given !== null) throw held;
      // The trainer may hold its part by now. What is left may still do.
      try {
        share = memoryShare(memory, { ...needs(), step: 0 });
      } catch (cause) {
        throw new HoneError(held.message, { code: held.code, cause });
      }
      log.warn({ card: memory.card, share, before: wanted }, `${name} gets less of its card`);
    },
  };
}

function tooFull(
  name: string,
  { total, free, card }: CardMemory & { card: string },
  share: number,
): HoneError {
  return new HoneError(
    `The memory of ${name} is not free: of ${inGib(total)} on card ${card}, ${inGib(free)} are free, and it takes ` +
      `${inGib(share * total)} (--gpu-memory-utilization ${share}). nvidia-smi names the processes that hold the rest. ` +
      "End what is not needed, or give vLLM less.",
    { code: "engine_unavailable" },
  );
}

function inGib(bytes: number): string {
  return `${(bytes / gibibyte).toFixed(1)} GiB`;
}
