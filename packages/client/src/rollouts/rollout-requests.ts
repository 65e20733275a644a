import {
  HoneError,
  rolloutBatchLimit,
  rolloutBatchSchema,
  rolloutInfoSchema,
  trajectorySchema,
  type CreateRollout,
  type PatchRollout,
  type RolloutBatchItem,
  type RolloutInfo,
  type Trajectory,
} from "@hone/core";
import { collectRequests } from "./collect-requests.ts";
import { isRetryable } from "@hone/transport";
import type { Transport } from "@hone/transport";

type Begin = CreateRollout & { id: string };
type End = PatchRollout & { id: string };

/** Opens and ends the rollouts of one `gather`. Those that come at the same time share a request. */
export interface RolloutRequests {
  create(body: Begin): Promise<RolloutInfo>;
  /** Ends the rollout and gives its trajectory. */
  end(body: End): Promise<Trajectory>;
}

/** At most so many ends share a request: the answer holds their whole conversations and must not get too large. */
const endsTogether = 64;

/** Every request ends when `signal` aborts. */
export function createRolloutRequests(transport: Transport, signal: AbortSignal): RolloutRequests {
  const begin = collectRequests<Begin, RolloutInfo>(rolloutBatchLimit, async (rollouts) => {
    const items = await inParts(rollouts, (part) => send("POST", { rollouts: part }));
    return items.map((item) => (isItem(item) ? (item.rollout ?? asError(item.error)) : item));
  });
  const end = collectRequests<End, Trajectory>(endsTogether, async (rollouts) => {
    const items = await inParts(rollouts, (part) =>
      send("PATCH", { rollouts: part, trajectories: true }),
    );
    return items.map((item) => (isItem(item) ? (item.trajectory ?? asError(item.error)) : item));
  });

  async function send(method: "POST" | "PATCH", body: object): Promise<RolloutBatchItem[]> {
    const path = "/v1/batch/rollouts";
    return (await transport.json(method, path, rolloutBatchSchema, { body, signal })).data;
  }

  async function infoOf(id: string): Promise<RolloutInfo> {
    return await transport.json("GET", `/v1/rollouts/${id}`, rolloutInfoSchema, { signal });
  }

  async function trajectoryOf(id: string): Promise<Trajectory> {
    const path = `/v1/rollouts/${id}/trajectory`;
    return await transport.json("GET", path, trajectorySchema, { signal });
  }

  return {
    async create(body) {
      try {
        return await alone(begin(body), async () =>
          transport.json("POST", "/v1/rollouts", rolloutInfoSchema, { body, signal }),
        );
      } catch (error) {
        // The first attempt made it and its answer was lost.
        if (HoneError.isInstance(error) && error.code === "rollout_exists") {
          return await infoOf(body.id);
        }
        throw error;
      }
    },

    async end({ id, ...body }) {
      try {
        return await alone(end({ id, ...body }), async () => {
          const path = `/v1/rollouts/${id}`;
          await transport.json("PATCH", path, rolloutInfoSchema, { body, signal });
          return await trajectoryOf(id);
        });
      } catch (error) {
        if (!HoneError.isInstance(error) || error.code !== "rollout_closed") throw error;
        // The first attempt closed it and its answer was lost; anything else that closed it is an error.
        const info = await infoOf(id);
        if (info.status !== body.status || info.reward !== (body.reward ?? null)) throw error;
        return await trajectoryOf(id);
      }
    },
  };
}

/** If an item failed in a way that may pass, sends it again by itself, with the retries of any request. */
async function alone<T>(together: Promise<T>, byItself: () => Promise<T>): Promise<T> {
  try {
    return await together;
  } catch (error) {
    if (error instanceof ItemError && isRetryable(error)) return await byItself();
    throw error;
  }
}

/** An error of one rollout, not of the request that it came with. */
class ItemError extends HoneError {}

function asError(error: RolloutBatchItem["error"]): ItemError {
  const { message, code, param } = error ?? {};
  return new ItemError(message ?? "The server left out a rollout of a batch.", {
    code: code ?? "invalid_response",
    param: param ?? undefined,
  });
}

function isItem(item: RolloutBatchItem | HoneError): item is RolloutBatchItem {
  return !HoneError.isInstance(item);
}

/**
 * Sends the items, and halves of them if the server refuses the body. Together they may be too large though none
 * is by itself, or one that the server cannot read may spoil the request. In the end only that one has the error.
 */
async function inParts<T, R>(
  items: readonly T[],
  work: (part: readonly T[]) => Promise<readonly R[]>,
): Promise<readonly (R | HoneError)[]> {
  try {
    const results = await work(items);
    if (results.length === items.length) return results;
    throw new HoneError("The server answered a batch of rollouts with another number of them.", {
      code: "invalid_response",
    });
  } catch (error) {
    if (!HoneError.isInstance(error)) throw error;
    if (items.length === 1 || !isOfItsContent(error)) return items.map(() => error);
    const half = Math.ceil(items.length / 2);
    return [
      ...(await inParts(items.slice(0, half), work)),
      ...(await inParts(items.slice(half), work)),
    ];
  }
}

/** Whether the error is due to the body that was sent. Another body may pass. */
export function isOfItsContent({ status }: HoneError): boolean {
  return status === 400 || status === 413;
}
