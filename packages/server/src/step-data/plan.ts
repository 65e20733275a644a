/** A completion that is no one's parent; it stands for its whole path from the root. */
export interface Leaf {
  /** Index of the completion in the batch. */
  index: number;
  rollout: number;
  group: number;
  /** The tokens of the path, in pieces. What two leaves have in common is one array to both. */
  path: readonly Int32Array[];
}

/** `plan[optimizer step][micro-batch]` lists leaves. */
export type Plan = number[][][];

export interface PlanOptions {
  optimizerSteps: number;
  maxTokensPerMicroBatch: number;
  /** What the objective looks at as a whole: all leaves of one go through together, however many tokens they have. */
  whole?: "rollout" | "group" | undefined;
}

/**
 * Which leaves go through the model together. It depends on nothing but its arguments: the order in which
 * gradients are summed decides their last bits, and a redone operation has to give the same ones.
 */
export function planMicroBatches(leaves: readonly Leaf[], options: PlanOptions): Plan {
  const groups = [...new Set(leaves.map(({ group }) => group))].sort((a, b) => a - b);
  // A group's rollouts are compared with one another, so they share an optimizer step.
  const steps = Math.min(options.optimizerSteps, groups.length);
  const stepOf = new Map(
    groups.map((group, i) => [group, Math.floor((i * steps) / groups.length)]),
  );
  return Array.from({ length: steps }, (_, step) =>
    microBatches(
      leaves.filter(({ group }) => stepOf.get(group) === step),
      options,
    ),
  );
}

/**
 * Has the plan say what the trainer did with a micro-batch that was too large for its memory: a step that is redone
 * follows it. Leaves that are in none of the parts stay in their order, beside them.
 */
export function splitInPlan(plan: Plan, into: readonly (readonly number[])[]): void {
  const [first] = into.flat();
  const parted = new Set(into.flat());
  for (const planned of plan) {
    const at = planned.findIndex((leaves) => leaves.some((leaf) => leaf === first));
    if (at < 0) continue;
    const leaves = planned[at] ?? [];
    const cut = leaves.findIndex((leaf) => leaf === first);
    const before = leaves.slice(0, cut).filter((leaf) => !parted.has(leaf));
    const after = leaves.slice(cut).filter((leaf) => !parted.has(leaf));
    const parts = [before, ...into.map((part) => [...part]), after];
    planned.splice(at, 1, ...parts.filter((part) => part.length > 0));
    return;
  }
}

/**
 * The worker packs a micro-batch into prefix trees, so its size is that of the trees. In the order of their
 * tokens leaves that begin alike are neighbours, and each adds what it does not share with the one before.
 */
function microBatches(
  leaves: readonly Leaf[],
  { maxTokensPerMicroBatch, whole }: PlanOptions,
): number[][] {
  const sorted = [...leaves].sort((a, b) => compareTokens(a.path, b.path) || a.index - b.index);
  const units = whole ? unitsOf(sorted, whole) : sorted.map((leaf) => [leaf]);
  const batches: number[][] = [];
  let size = 0;
  let previous: Leaf | undefined;
  for (const unit of units) {
    const alone = addedTokens(unit, undefined);
    const added = addedTokens(unit, previous);
    const current = batches.at(-1);
    const indices = unit.map(({ index }) => index);
    if (current && size + added <= maxTokensPerMicroBatch) {
      current.push(...indices);
      size += added;
    } else {
      batches.push(indices);
      size = alone;
    }
    previous = unit.at(-1);
  }
  return batches;
}

/** In the order of the first leaf of each. */
function unitsOf(leaves: readonly Leaf[], whole: "rollout" | "group"): Leaf[][] {
  const units = new Map<number, Leaf[]>();
  for (const leaf of leaves) {
    const unit = units.get(leaf[whole]);
    if (unit) unit.push(leaf);
    else units.set(leaf[whole], [leaf]);
  }
  return [...units.values()];
}

/** What the leaves of a unit have that the one before them has not. */
function addedTokens(unit: readonly Leaf[], before: Leaf | undefined): number {
  let tokens = 0;
  let previous = before;
  for (const leaf of unit) {
    const length = leaf.path.reduce((sum, piece) => sum + piece.length, 0);
    tokens += length - (previous ? divergence(previous.path, leaf.path).shared : 0);
    previous = leaf;
  }
  return tokens;
}

function compareTokens(a: readonly Int32Array[], b: readonly Int32Array[]): number {
  const { left, right } = divergence(a, b);
  // The end of a path comes before every token.
  return (left ?? -1) - (right ?? -1);
}

/** How many tokens two paths share from the start, and the first ones that differ, if there are any. */
function divergence(
  a: readonly Int32Array[],
  b: readonly Int32Array[],
): { shared: number; left: number | undefined; right: number | undefined } {
  let shared = 0;
  // Where in which piece of either path.
  let i = 0;
  let j = 0;
  let x = 0;
  let y = 0;
  for (;;) {
    let one = a[i];
    while (one && x === one.length) {
      one = a[++i];
      x = 0;
    }
    let other = b[j];
    while (other && y === other.length) {
      other = b[++j];
      y = 0;
    }
    if (!one || !other) return { shared, left: one?.[x], right: other?.[y] };
    if (one === other && x === y) {
      shared += one.length - x;
      x = one.length;
      y = one.length;
      continue;
    }
    const count = Math.min(one.length - x, other.length - y);
    for (let k = 0; k < count; k++) {
      const left = one[x + k];
      const right = other[y + k];
      if (left !== right) return { shared: shared + k, left, right };
    }
    shared += count;
    x += count;
    y += count;
  }
}
