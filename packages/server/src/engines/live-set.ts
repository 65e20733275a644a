import type { LiveAdapter, LiveBase, LiveSet } from "../ports/live-set.ts";

export type { LiveSet };

/** The live set as whoever serves it to others sees it. */
export interface LiveSetView {
  current(): LiveSet;
  /** Hears of each change, after it. Gives what ends it. */
  onChange(listener: (set: LiveSet) => void): () => void;
}

/** The live set, and those who watch it. */
export interface LiveAdapters extends LiveSetView {
  get(policy: string): LiveAdapter | undefined;
  has(policy: string): boolean;
  policies(): string[];
  add(adapter: LiveAdapter): void;
  remove(policy: string): void;
}

export function createLiveAdapters(base: () => LiveBase): LiveAdapters {
  const adapters = new Map<string, LiveAdapter>();
  const listeners = new Set<(set: LiveSet) => void>();
  let generation = 0;

  const current = (): LiveSet => ({ generation, base: base(), adapters: [...adapters.values()] });

  function changed(): void {
    generation++;
    const set = current();
    for (const listener of [...listeners]) listener(set);
  }

  return {
    current,
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    get: (policy) => adapters.get(policy),
    has: (policy) => adapters.has(policy),
    policies: () => [...adapters.keys()],
    add(adapter) {
      const { policy, sha256, path } = adapter;
      const before = adapters.get(policy);
      adapters.set(policy, adapter);
      if (before?.sha256 !== sha256 || before.path !== path) changed();
    },
    remove(policy) {
      if (adapters.delete(policy)) changed();
    },
  };
}
