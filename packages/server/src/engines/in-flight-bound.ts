/** What an engine's own metrics said last. */
export interface EngineHint {
  /** Requests that wait in the engine's own queue. */
  waiting: number;
  /** The share of its memory for keys and values that requests use, from 0 to 1. */
  kvUse: number;
  /** Requests whose keys and values it had to give up, ever. */
  preemptions: number;
}

/** How many sequences one engine may sample at the same time. It follows how full the engine's KV memory is. */
export interface InFlightBound {
  readonly value: number;
  /** To be called with every reading of the metrics. `wanted`: more would be sent if they might. */
  read(hint: EngineHint, now: { inFlight: number; wanted: boolean; preempted: boolean }): void;
}

/** Below this KV use the bound grows, above the other one it is trimmed. */
const growBelow = 0.6;
const trimAbove = 0.8;
const trimTo = 0.8;
/** An engine that is allowed fewer than this would batch nothing. */
const leastInFlight = 8;
/** vLLM's own default of `--max-num-seqs` on most cards. */
const defaultInFlight = 256;

/**
 * Additive increase, multiplicative decrease: it begins with what the engine batches (`--max-num-seqs`), grows by a
 * 32nd of that a reading while there is room and demand, and falls to .8 of what is in flight while KV runs short. It
 * stays between 8 and four times its beginning.
 */
export function createInFlightBound(start = defaultInFlight): InFlightBound {
  const least = Math.min(leastInFlight, start);
  const most = 4 * start;
  const step = Math.max(1, Math.round(start / 32));
  let value = start;
  return {
    get value() {
      return value;
    },
    read({ kvUse, waiting }, { inFlight, wanted, preempted }) {
      if (kvUse > trimAbove || preempted) {
        value = Math.max(least, Math.floor(Math.min(value, inFlight) * trimTo));
      } else if (kvUse < growBelow && waiting === 0 && wanted) {
        value = Math.min(most, value + step);
      }
    },
  };
}
