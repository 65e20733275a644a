/** A place in the sequences that are known, behind so many tokens of a run. */
interface Place {
  run: Run;
  offset: number;
}

/** Tokens that follow one another in every sequence through them. */
interface Run {
  ids: Int32Array;
  /** By their first token. */
  next: Map<number, Run>;
  /** What was behind `ids` in the same run, before sequences that part there were known. */
  rest: Run | null;
}

/**
 * Sequences of token ids as a tree in which what several begin with stands once. What it costs to add one grows with
 * its own length alone, however many there are.
 */
export function createKnownSequences() {
  const root: Run = { ids: new Int32Array(0), next: new Map(), rest: null };
  const ends = new Map<string, Place>();

  /** Adds a completion, behind its parent where it has one. Gives how many of its tokens were known there. */
  function add(one: {
    id: string;
    parentId: string | null;
    promptSuffix: Int32Array;
    sampled: Int32Array;
  }): number {
    const from = one.parentId === null ? undefined : ends.get(one.parentId);
    const prompt = follow(from ?? { run: root, offset: 0 }, one.promptSuffix);
    const answer = follow(prompt.end, one.sampled);
    ends.set(one.id, answer.end);
    return prompt.known;
  }

  return { add };
}

/** Goes along the ids, and adds those that are not known. */
function follow(from: Place, ids: Int32Array): { end: Place; known: number } {
  let { run, offset } = current(from);
  let at = 0;
  while (at < ids.length) {
    if (offset < run.ids.length) {
      if (run.ids[offset] === ids[at]) {
        offset += 1;
        at += 1;
        continue;
      }
      part(run, offset);
    }
    const next = run.next.get(ids[at]!);
    if (!next) {
      const added: Run = { ids: ids.subarray(at), next: new Map(), rest: null };
      run.next.set(ids[at]!, added);
      return { end: { run: added, offset: added.ids.length }, known: at };
    }
    run = next;
    offset = 0;
  }
  return { end: { run, offset }, known: at };
}

/** Where a place is that was noted before its run was parted. */
function current({ run, offset }: Place): Place {
  while (offset > run.ids.length && run.rest) {
    offset -= run.ids.length;
    run = run.rest;
  }
  return { run, offset };
}

function part(run: Run, offset: number): void {
  const rest: Run = { ids: run.ids.subarray(offset), next: run.next, rest: run.rest };
  run.ids = run.ids.subarray(0, offset);
  run.next = new Map([[rest.ids[0]!, rest]]);
  run.rest = rest;
}
