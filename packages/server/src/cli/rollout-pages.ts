import { rolloutListSchema, type RolloutSummary } from "@hone/core";
import type { Connection } from "./connection.ts";

const pageSize = 100;

/** The newest rollouts of a model that fit the query, fetched page by page. `more` says that `most` left some out. */
export async function rolloutsOf(
  connection: Connection,
  model: string,
  query: Readonly<Record<string, string | number | undefined>>,
  most = Number.POSITIVE_INFINITY,
): Promise<{ rollouts: RolloutSummary[]; more: boolean }> {
  const rollouts: RolloutSummary[] = [];
  for (;;) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) search.set(name, String(value));
    }
    search.set("limit", String(Math.min(pageSize, most - rollouts.length)));
    const last = rollouts.at(-1);
    if (last) search.set("after", last.id);
    const path = `/v1/models/${encodeURIComponent(model)}/rollouts?${search.toString()}`;
    const { data, has_more } = await connection.get(rolloutListSchema, path);
    rollouts.push(...data);
    if (!has_more || data.length === 0) return { rollouts, more: false };
    if (rollouts.length >= most) return { rollouts, more: true };
  }
}
