import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import OpenAI from "openai";

/** What streams that go on all the time have met. */
interface Traffic {
  /** Whole streams. */
  answers: number;
  /** Broke off after they had begun: their client sent them again. */
  broken: string[];
  /** Given up before they had begun, although the client had tried again. */
  failed: string[];
  /** Streams with other tokens than those of the policy that they name, or with too few although they ended as whole. */
  wrong: string[];
}

export interface StreamsUnderWay extends Traffic {
  /** Begins no more. Resolves when none is under way. */
  pause(): Promise<void>;
  resume(): void;
  stop(): Promise<void>;
}

const answerTokens = 16;
const lookEveryMs = 20;

interface Chunk {
  model: string;
  choices: { token_ids?: number[]; finish_reason: string | null }[];
}

/** So many streams at a time for model `m`, of whose policies each says one token. */
export function startTraffic(options: {
  url: string;
  key: string;
  streams: number;
  /** The token of a policy. */
  tokenOf: (step: number) => number;
}): StreamsUnderWay {
  const { tokenOf } = options;
  const closing = new AbortController();
  const { signal } = closing;
  // Each try of a request adds one.
  setMaxListeners(0, signal);
  const traffic: Traffic = { answers: 0, broken: [], failed: [], wrong: [] };
  let isPaused = false;
  const underWay = new Set<number>();
  const client = new OpenAI({
    ...{ baseURL: `${options.url}/v1`, apiKey: options.key, maxRetries: 10 },
  });

  async function one(nth: number): Promise<void> {
    let hasBegun = false;
    try {
      const stream = (await client.completions.create(
        {
          ...{ model: "m", prompt: [100 + nth, 7, 9], max_tokens: answerTokens, temperature: 0 },
          ...({ return_token_ids: true } as object),
          stream: true,
        },
        { signal },
      )) as unknown as AsyncIterable<Chunk>;
      hasBegun = true;
      const ids: number[] = [];
      let policy = "";
      let ended = false;
      for await (const { model, choices } of stream) {
        policy = model;
        for (const choice of choices) {
          ids.push(...(choice.token_ids ?? []));
          ended ||= choice.finish_reason !== null;
        }
      }
      if (signal.aborted) return;
      const wrong = wrongIn({ policy, ids, ended });
      if (wrong === null) traffic.answers++;
      else traffic.wrong.push(wrong);
    } catch (error) {
      if (signal.aborted) return;
      (hasBegun ? traffic.broken : traffic.failed).push((error as Error).message);
      if (!hasBegun) await delay(1_000);
    }
  }

  function wrongIn(answer: { policy: string; ids: number[]; ended: boolean }): string | null {
    const { policy, ids, ended } = answer;
    const token = tokenOf(Number(policy.split("@")[1]));
    if (!ended) return "a stream ended without its end";
    if (ids.length !== answerTokens) return `a stream ended as whole with ${ids.length} tokens`;
    return ids.some((id) => id !== token) ? `a stream of ${policy} has other tokens` : null;
  }

  const running = Array.from({ length: options.streams }, async (_, nth) => {
    while (!signal.aborted) {
      if (isPaused) {
        await delay(lookEveryMs);
        continue;
      }
      underWay.add(nth);
      await one(nth);
      underWay.delete(nth);
    }
  });
  return Object.assign(traffic, {
    async pause() {
      isPaused = true;
      while (underWay.size > 0) await delay(lookEveryMs);
    },
    resume() {
      isPaused = false;
    },
    async stop() {
      closing.abort();
      await Promise.all(running);
    },
  });
}
