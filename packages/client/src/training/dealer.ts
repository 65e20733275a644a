import { HoneError, mulberry32, shuffledIndices } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import type { Batch, BatchCursor, BatchesOptions } from "./batch.ts";
import { bandsOf, drawScenario, outcomeOf, readCurriculum, withOutcomes } from "./curriculum.ts";
import type { Bands, CurriculumShares } from "./curriculum.ts";
import { mean } from "../statistics.ts";
import { scenarioKey } from "./scenarios.ts";

/** The batch of a cursor: of every cursor that the batch has had, because a copy of it may hold an earlier one. */
const batches = new WeakMap<BatchCursor, DealtBatch<unknown>>();

/** The cursor to commit with a step on these groups, which says what the curriculum has learnt from them. */
export function cursorWith(cursor: BatchCursor, groups: readonly TrajectoryGroup[]): BatchCursor {
  return batches.get(cursor)?.note(groups) ?? cursor;
}

/** Says that a batch has its step. */
export function noteSubmitted(cursor: BatchCursor): void {
  batches.get(cursor)?.submitted();
}

/** Says what became of it. Only the first time counts. */
export function noteEnded(cursor: BatchCursor, trained: boolean): void {
  batches.get(cursor)?.ended(trained);
}

/** Deals out the scenarios from a cursor on. What it deals follows from the cursor and the groups that were noted. */
export class Dealer<Scenario> {
  readonly scenarios: readonly Scenario[];
  readonly steps: number;
  readonly curriculum: ReturnType<typeof readCurriculum>;
  /** Behind everything that was dealt out. Its `trained` is that of the batch. */
  cursor: BatchCursor;
  current: DealtBatch<Scenario> | null = null;
  /** Batches that were dealt out and have no step so far. */
  readonly open = new Set<DealtBatch<Scenario>>();
  readonly #groupsPerStep: number;
  #order: readonly number[];
  #indices: ReadonlyMap<string, number> | null = null;

  constructor(scenarios: readonly Scenario[], options: BatchesOptions, cursor: BatchCursor) {
    this.scenarios = scenarios;
    this.steps = options.steps;
    this.curriculum = readCurriculum("batches()", options.curriculum);
    this.cursor = cursor;
    this.#groupsPerStep = options.groupsPerStep;
    this.#order = orderOf(cursor);
  }

  /** The next batch, which `trained` steps come before. */
  deal(trained: number): Batch<Scenario> {
    const { step, epoch, curriculum } = this.cursor;
    const all = curriculum ? bandsOf(curriculum) : null;
    this.cursor = { ...this.cursor, step: step + 1, trained: trained + 1 };
    const batch = new DealtBatch(this, { step, trained, epoch, all });
    this.current = batch;
    this.open.add(batch);
    batch.scenarios = batch.draw(this.#groupsPerStep);
    return batch;
  }

  /** Takes the next scenarios, by their indices. A curriculum takes none that is among `taken`, if there are others. */
  take(count: number, taken: ReadonlySet<number>): number[] {
    const picked: number[] = [];
    const { seed } = this.cursor;
    let { epoch, position, curriculum } = this.cursor;
    while (picked.length < count) {
      if (position >= this.scenarios.length) {
        if (curriculum && this.curriculum) {
          const random = mulberry32(mixed(seed, curriculum.drawn));
          const held = new Set([...taken, ...picked]);
          picked.push(drawScenario(curriculum, held, this.curriculum.floor, random));
          curriculum = { ...curriculum, drawn: curriculum.drawn + 1 };
          continue;
        }
        epoch += 1;
        position = 0;
        this.#order = orderOf({ ...this.cursor, epoch });
      }
      picked.push(this.#order[position] as number);
      position += 1;
    }
    this.cursor = { ...this.cursor, epoch, position, ...(curriculum && { curriculum }) };
    return picked;
  }

  /** The index of a scenario, by its content; of equal ones the first. */
  indexOf(scenario: unknown): number | undefined {
    this.#indices ??= new Map(
      this.scenarios.map((one, index) => [scenarioKey(one), index] as const).toReversed(),
    );
    return this.#indices.get(scenarioKey(scenario));
  }
}

class DealtBatch<Scenario> implements Batch<Scenario> {
  scenarios: readonly Scenario[] = [];
  readonly step: number;
  trained: number;
  readonly steps: number;
  readonly epoch: number;
  cursor: BatchCursor;
  curriculum: CurriculumShares | null;
  readonly #dealer: Dealer<Scenario>;
  readonly #drawn = new Set<number>();
  /** Groups that the curriculum has heard of, so that a step that is tried again does not count twice. */
  readonly #noted = new Set<string>();
  #ended = false;
  /** Whether its step counts as one of the run's, once it has ended. */
  #counts = true;

  constructor(
    dealer: Dealer<Scenario>,
    given: { step: number; trained: number; epoch: number; all: Bands | null },
  ) {
    this.#dealer = dealer;
    this.step = given.step;
    this.trained = given.trained;
    this.steps = dealer.steps;
    this.epoch = given.epoch;
    this.cursor = dealer.cursor;
    const drawn: Bands = { unseen: 0, never: 0, sometimes: 0, always: 0 };
    this.curriculum = given.all && { success: null, drawn, all: given.all };
  }

  draw(count: number): readonly Scenario[] {
    if (this.#dealer.current !== this) {
      throw new HoneError(
        "draw() was called on a batch after the next one had been dealt out. Draw while the loop is at this batch.",
        { code: "invalid_config", param: "batch" },
      );
    }
    const indices = this.#dealer.take(count, this.#drawn);
    const { curriculum } = this.#dealer.cursor;
    if (curriculum && this.curriculum) {
      const drawn = added(this.curriculum.drawn, bandsOf(curriculum, indices));
      this.curriculum = { ...this.curriculum, drawn };
    }
    for (const index of indices) this.#drawn.add(index);
    this.#setCursor({ ...this.#dealer.cursor, trained: this.trained + 1 });
    return indices.map((index) => this.#dealer.scenarios[index] as Scenario);
  }

  submitted(): void {
    const { open } = this.#dealer;
    // Those before it that the loop has passed over get no step any more.
    for (const batch of open) if (batch.step <= this.step) open.delete(batch);
    // Its step is tried once more after one that failed.
    if (this.#ended && !this.#counts) for (const batch of open) batch.#move(1);
    this.#ended = false;
  }

  /** If its step has trained nothing, the batches that were dealt out meanwhile move up. */
  ended(trained: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#counts = trained;
    if (!trained) for (const batch of this.#dealer.open) batch.#move(-1);
  }

  #move(steps: number): void {
    this.trained += steps;
    this.#setCursor({ ...this.cursor, trained: this.cursor.trained + steps });
  }

  /** Tells the curriculum how the batch's scenarios went, and gives the cursor that says so. */
  note(groups: readonly TrajectoryGroup[]): BatchCursor {
    const { curriculum: options, cursor: newest } = this.#dealer;
    if (!options || !newest.curriculum || !this.curriculum) return this.cursor;
    const outcomes = groups.flatMap((group) => {
      const scenario = this.#dealer.indexOf(group.scenario);
      const outcome = outcomeOf(group, options.success);
      if (scenario === undefined || outcome === null || this.#noted.has(group.id)) return [];
      return [[scenario, outcome] as const];
    });
    for (const { id } of groups) this.#noted.add(id);
    if (outcomes.length === 0) return this.cursor;
    const success = mean(outcomes.map(([, { rate }]) => rate));
    this.curriculum = { ...this.curriculum, success };
    const known = withOutcomes(newest.curriculum, outcomes);
    this.#dealer.cursor = { ...newest, curriculum: known };
    // The place in the scenarios is this batch's own: another one may have been dealt out since.
    const { drawn = known.drawn } = this.cursor.curriculum ?? {};
    this.#setCursor({ ...this.cursor, curriculum: { ...known, drawn } });
    return this.cursor;
  }

  #setCursor(cursor: BatchCursor): void {
    this.cursor = cursor;
    batches.set(cursor, this);
  }
}

function added(a: Bands, b: Bands): Bands {
  return {
    unseen: a.unseen + b.unseen,
    never: a.never + b.never,
    sometimes: a.sometimes + b.sometimes,
    always: a.always + b.always,
  };
}

/** The seed of one of the run's choices. */
function mixed(seed: number, which: number): number {
  return Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(which + 1, 0xc2b2ae35);
}

/** The order follows from seed and epoch, so that a resumed epoch has the order that it began with. */
export function orderOf({
  size,
  seed,
  epoch,
  shuffle,
}: Pick<BatchCursor, "size" | "seed" | "epoch" | "shuffle">): number[] {
  if (!shuffle) return Array.from({ length: size }, (_, index) => index);
  return shuffledIndices(size, mulberry32(mixed(seed, epoch)));
}
