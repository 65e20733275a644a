import { HoneError, scoresSchema } from "@hone/core";
import type { ScoreItem, Scores } from "@hone/core";
import { isRetryable } from "@hone/transport";
import type { Transport } from "@hone/transport";

export interface ScoreSettings {
  server: Transport;
  model: string;
  label: string | null;
  tooLong: "error" | "null" | "truncate";
}

type ItemScore = Scores["data"][number];
/** An item's score, or what was wrong with that item alone. */
export type ItemResult = { score: ItemScore; maxTokens: number } | { error: HoneError };

/**
 * Scores of all items in one request. An item that the server refuses gets its own error, and the others are
 * asked for again without it; any other failure is thrown.
 */
export async function requestScores(
  items: readonly ScoreItem[],
  { server, model: name, label, tooLong }: ScoreSettings,
  signal: AbortSignal | undefined,
): Promise<ItemResult[]> {
  const results = new Map<number, ItemResult>();
  for (;;) {
    const open = [...items.keys()].filter((place) => !results.has(place));
    if (open.length === 0) return [...items.keys()].map((place) => results.get(place)!);
    try {
      const asked = open.map((place) => items[place]!);
      const { data, model } = await server.json("POST", "/v1/score", scoresSchema, {
        body: { model: name, items: asked, tooLong, ...(label !== null && { label }) },
        signal,
        // What took the whole limit would take it again.
        retry: (error) => error.code !== "timeout" && isRetryable(error),
      });
      if (data.length !== open.length) throw notScores();
      for (const [at, place] of open.entries()) {
        results.set(place, { score: data[at]!, maxTokens: model.maxTokens });
      }
    } catch (error) {
      signal?.throwIfAborted();
      const place = HoneError.isInstance(error) ? open[refusedItem(error) ?? -1] : undefined;
      if (place === undefined || !HoneError.isInstance(error)) throw error;
      results.set(place, { error: ofTrajectory(error) });
    }
  }
}

/** Which of the items an answer of 400 is about. */
function refusedItem({ status, param }: HoneError): number | null {
  const found = status === 400 ? /^items\[(\d+)\]/.exec(param ?? "")?.[1] : undefined;
  return found === undefined ? null : Number(found);
}

/** Its place in a request says nothing to whoever scores a trajectory. */
function ofTrajectory({ message, code, status, param }: HoneError): HoneError {
  return new HoneError(message.replace(/^items\[\d+\]:? /, "The trajectory "), {
    code,
    status,
    param: param?.replace(/^items\[\d+\]\.?/, "") || undefined,
  });
}

function notScores(): HoneError {
  return new HoneError(
    "The server's answer holds no scores. Use the same version of server and ruler.",
    { code: "invalid_response" },
  );
}
