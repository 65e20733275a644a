import { HoneError, maxBodyBytes } from "@hone/core";
import type { ExamplesSource } from "./examples-source.ts";

/** Examples that are sent together, and what messages call them. */
export interface Together {
  name: string;
  indices: readonly number[];
}

/** What a request holds besides its examples may grow by so much during a run: its numbers get longer. @unit bytes */
const spare = 1024;
/** So many examples are named, and none that is less than a tenth of the largest. */
const mostNamed = 5;

/**
 * Refuses examples that are too large to be sent together, and names the largest of them: a run would end there, with
 * the steps before trained. `besides` is what each request holds besides its examples. @unit bytes
 */
export function requireRoom(
  where: string,
  source: Pick<ExamplesSource<unknown>, "bytes" | "place">,
  requests: Iterable<Together>,
  besides: number,
): void {
  const room = maxBodyBytes - besides - spare;
  const large = new Set<number>();
  let first: (Together & { bytes: number }) | null = null;
  let count = 0;
  for (const { name, indices } of requests) {
    // A comma stands behind each.
    const bytes = indices.reduce((sum, index) => sum + source.bytes(index) + 1, 0);
    if (bytes <= room) continue;
    count += 1;
    first ??= { name, indices, bytes };
    for (const index of indices) large.add(index);
  }
  if (!first) return;
  const sorted = [...large].sort((a, b) => source.bytes(b) - source.bytes(a));
  const least = source.bytes(sorted[0] ?? -1) / 10;
  const largest = sorted
    .slice(0, mostNamed)
    .filter((index) => source.bytes(index) >= least)
    .map((index) => `${source.place(index)} (${megabytes(source.bytes(index))})`);
  const others = count === 1 ? "" : ` (of the run ${count} requests are too large)`;
  throw new HoneError(
    `${where}: ${first.name} would be a request of ${megabytes(first.bytes + besides)}, and ` +
      `one holds ${megabytes(maxBodyBytes)}${others}. The largest examples: ${largest.join(", ")}. ` +
      "Give a smaller batchSize, or shorten or leave out such examples.",
    { code: "body_too_large", param: "batchSize" },
  );
}

function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
