/** A completion that is no one's parent; it stands for its whole path from the root. */
export interface Leaf {
  /** Index of the completion in the batch. */
  index: number;
  group: number;
  /** Tokens of the path. */
  length: number;
}

/** `plan[optimizer step][micro-batch]` lists leaves. */
export type Plan = number[][][];

/**
 * Which leaves go through the model together. It depends on nothing but its arguments: the order in which
 * gradients are summed decides their last bits, and a redone operation has to give the same ones.
 */
export function planMicroBatches(
  leaves: readonly Leaf[],
  options: { optimizerSteps: number; maxTokensPerMicroBatch: number },
): Plan {
  const groups = [...new Set(leaves.map(({ group }) => group))].sort((a, b) => a - b);
  // A group's rollouts are compared with one another, so they share an optimizer step.
  const steps = Math.min(options.optimizerSteps, groups.length);
  const stepOf = new Map(
    groups.map((group, i) => [group, Math.floor((i * steps) / groups.length)]),
  );
  return Array.from({ length: steps }, (_, step) =>
    microBatches(
      leaves.filter(({ group }) => stepOf.get(group) === step),
      options.maxTokensPerMicroBatch,
    ),
  );
}

/** Longest first: rows of like length waste little padding, and what does not fit fails at once. */
function microBatches(leaves: readonly Leaf[], maxTokens: number): number[][] {
  const sorted = [...leaves].sort((a, b) => b.length - a.length || a.index - b.index);
  const batches: number[][] = [];
  let width = 0;
  for (const { index, length } of sorted) {
    const current = batches.at(-1);
    if (current && (current.length + 1) * width <= maxTokens) current.push(index);
    else {
      batches.push([index]);
      width = length;
    }
  }
  return batches;
}
