import { AsyncLocalStorage } from "node:async_hooks";
import type { HoneError } from "@hone/core";

/** What a request has to know about the rollout that it is made in. */
export interface RolloutContext {
  readonly rolloutId: string;
  readonly model: string;
  readonly baseURL: string;
  readonly signal: AbortSignal;
  readonly calls: CallCounter;
  /** The rollout whose agent called the `gather` that this one belongs to. */
  readonly parent?: RolloutContext | undefined;
  /** Sends any client's request and records it under this rollout. Only on other APIs, which have no ledger. */
  readonly record?: typeof globalThis.fetch | undefined;
  /** Ends the rollout with this error, even if its agent catches the error. */
  fail(error: HoneError): void;
}

/** Counts the model calls of a rollout and knows which are under way. */
export class CallCounter {
  #started = 0;
  readonly #open = new Set<number>();
  readonly #askServer: () => Promise<unknown>;
  /** Calls that were not sent. */
  refused = 0;
  /** How many answers the server should have of the calls: one that asks for several choices gets one of each. */
  choices = 0;
  /** The status of the last call that was answered with an error, also by another model of the server. */
  refusal: number | null = null;
  /** Whether the connection of a call broke, also of one to another model of the server. */
  lost = false;
  /** Settles once it is known whether the server was away when a call suffered. Never rejects. */
  asked: Promise<unknown> = Promise.resolve();

  /** `askServer`: asks the server whether it is there. At once, because it may be back before the rollout ends. */
  constructor(askServer: () => Promise<unknown> = () => Promise.resolve()) {
    this.#askServer = askServer;
  }

  get started(): number {
    return this.#started;
  }

  /** The call that has been waiting longest; null when none is under way. */
  get current(): number | null {
    let least: number | null = null;
    for (const call of this.#open) if (least === null || call < least) least = call;
    return least;
  }

  begin(choices = 1): () => void {
    this.#started += 1;
    this.choices += choices;
    const call = this.#started;
    this.#open.add(call);
    return () => this.#open.delete(call);
  }

  /** The server is not asked about a call that its agent ended. */
  lose(byAgent: boolean): void {
    this.lost = true;
    if (!byAgent) this.#ask();
  }

  refuse(status: number): void {
    this.refusal = status;
    // Of somebody in the server's place, or of the server while it starts.
    if (status >= 502 && status <= 504) this.#ask();
  }

  #ask(): void {
    const before = this.asked;
    this.asked = Promise.all([before, this.#askServer().catch(() => {})]);
  }
}

const storageKey = Symbol.for("hone.rollout");
const openKey = Symbol.for("hone.rollouts.open");
const registry = globalThis as {
  [storageKey]?: AsyncLocalStorage<RolloutContext>;
  [openKey]?: Map<string, RolloutContext>;
};

/** Kept under a global symbol, so that two copies of this package see the same rollout. */
const storage: AsyncLocalStorage<RolloutContext> = (registry[storageKey] ??=
  new AsyncLocalStorage<RolloutContext>());

/** The rollouts of this process that are not over, by their id. */
const open: Map<string, RolloutContext> = (registry[openKey] ??= new Map<string, RolloutContext>());

/** Runs the agent in the context of this rollout. After the rollout's end `openRollout` finds it no more. */
export function runInRollout<T>(context: RolloutContext, work: () => T): T {
  open.set(context.rolloutId, context);
  context.signal.addEventListener("abort", () => open.delete(context.rolloutId), { once: true });
  if (context.signal.aborted) open.delete(context.rolloutId);
  return storage.run(context, work);
}

export function currentRollout(): RolloutContext | undefined {
  return storage.getStore();
}

export function openRollout(id: string): RolloutContext | undefined {
  return open.get(id);
}

/** Whether `inner` is the rollout itself, or was started, directly or not, by a `gather` of its agent. */
export function isWithin(inner: RolloutContext, rollout: RolloutContext): boolean {
  for (let at: RolloutContext | undefined = inner; at; at = at.parent) {
    if (at.rolloutId === rollout.rolloutId) return true;
  }
  return false;
}
