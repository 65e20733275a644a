import { pino, type Logger } from "pino";
import type { Engine, EngineChunk } from "../ports/engine.ts";
import type { Route } from "../engines/placement.ts";
import { createEngineRouter, type EngineRouter } from "../engines/router.ts";

/** Rollouts over scripted engines, on a clock of its own: minutes of traffic in a second, the same each time. */
export interface Simulation {
  engines: number;
  /** How many times as long as the others the first engine takes. @default 1 */
  slow?: number | undefined;
  rollouts: number;
  /** @default 8 */
  groupSize?: number | undefined;
  turns: number;
  /** Rollouts at the same time. */
  concurrency: number;
  /** Requests that fill an engine's KV memory. @default 64 */
  kvHolds?: number | undefined;
  /** What happens to engines, at a time of the simulation. @unit ms */
  events?: readonly { atMs: number; engine: number; shut: Route["shut"] }[] | undefined;
  seed?: number | undefined;
  log?: Logger | undefined;
}

export interface SimulationResult {
  /** The share of turns whose prompt begins with what their engine has computed already, and of those after the first. */
  withPrefix: number;
  laterWithPrefix: number;
  /** Times the mean, of the open rollouts on an engine while all places are taken: the worst moment, and on average. */
  worstOverMean: number;
  averageOverMean: number;
  /** Turns that went to another engine than the one before, and whether each was counted as a move. */
  moved: number;
  movesCounted: number;
  moves: Record<string, number>;
  /** Turns that were sent again after a 429. */
  busy: number;
  /** Turns that each engine has answered. */
  answered: number[];
  /** Of the simulation. @unit ms */
  durationMs: number;
}

const readEveryMs = 1_000;

export async function simulateRouting(options: Simulation): Promise<SimulationResult> {
  const { groupSize = 8, kvHolds = 64, slow = 1 } = options;
  const random = randomOf(options.seed ?? 1);
  let now = 0;
  const events = createQueue();
  const shut: Route["shut"][] = Array.from({ length: options.engines }, () => null);
  const running = Array.from({ length: options.engines }, () => 0);
  const preempted = Array.from({ length: options.engines }, () => 0);
  const answered = Array.from({ length: options.engines }, () => 0);
  const routes = Array.from({ length: options.engines }, (_, at) => ({
    name: `engine-${at + 1}`,
    engine: scripted(at),
  }));
  const router: EngineRouter = createEngineRouter({
    routes: () => routes.map((route, at) => ({ ...route, shut: shut[at] ?? null })),
    noneOpen: () => new Error("no engine is there"),
    maxSequences: () => kvHolds,
    now: () => now,
    log: options.log ?? pino({ level: "silent" }),
  });

  function scripted(at: number): Engine {
    const unused = (): never => {
      throw new Error("the router asks for no more than samples and metrics");
    };
    return {
      kind: "vllm",
      ...{ info: unused, load: unused, unload: unused, served: unused },
      metrics: async () => {
        const use = Math.min(1, (running[at] ?? 0) / kvHolds);
        if (use === 1) preempted[at] = (preempted[at] ?? 0) + 1;
        return [
          `vllm:kv_cache_usage_perc{engine="0"} ${use}`,
          `vllm:num_requests_waiting{engine="0"} 0`,
          `vllm:num_preemptions_total{engine="0"} ${preempted[at]}`,
        ].join("\n");
      },
      async *generate(): AsyncGenerator<EngineChunk> {
        running[at] = (running[at] ?? 0) + 1;
        // A batch of many takes longer than one of few, and no two answers are equally long.
        const takes = (600 + 10 * (running[at] ?? 0)) * (0.5 + random()) * (at === 0 ? slow : 1);
        await events.after(takes);
        running[at] = (running[at] ?? 0) - 1;
        answered[at] = (answered[at] ?? 0) + 1;
        yield { index: 0, text: String(at), tokenIds: [1], logprobs: [-1], finishReason: "stop" };
      },
    };
  }

  let [first, firstFound, later, laterFound, moved, busy, open] = [0, 0, 0, 0, 0, 0, 0];
  const seenGroups = new Map<string, Set<string>>();
  const loads: number[] = [];

  async function turn(rollout: string, group: string): Promise<string> {
    for (;;) {
      try {
        const affinity = { rollout, group };
        const request = { ...requestOf(), affinity };
        for await (const { text } of router.generate(request)) return text;
      } catch (error) {
        const { code, retryAfterMs } = error as { code?: string; retryAfterMs?: number };
        if (code !== "engine_busy") throw error;
        busy++;
        await events.after(retryAfterMs ?? 1000);
      }
    }
  }

  async function play(at: number): Promise<void> {
    const rollout = `ro_${at}`;
    const group = `grp_${Math.floor(at / groupSize)}`;
    const seen = seenGroups.get(group) ?? new Set<string>();
    let last: string | null = null;
    for (let nth = 0; nth < options.turns; nth++) {
      const isNewGroup = !seenGroups.has(group);
      seenGroups.set(group, seen);
      const engine = await turn(rollout, group);
      if (last === null) {
        first++;
        if (isNewGroup || seen.has(engine)) firstFound++;
      } else {
        later++;
        if (engine === last) laterFound++;
        else moved++;
      }
      seen.add(engine);
      last = engine;
      // The agent's tools.
      await events.after(200 + 600 * random());
    }
    router.rolloutEnded(rollout);
    open--;
  }

  function note(): void {
    if (open < options.concurrency) return;
    const counts = router.figures().map(({ rollouts }) => rollouts);
    const mean = counts.reduce((sum, one) => sum + one, 0) / counts.length;
    // Until the first ones have been placed there is no mean.
    if (mean >= options.concurrency / options.engines / 2) loads.push(Math.max(...counts) / mean);
  }

  let nextRollout = 0;
  const playing: Promise<void>[] = [];
  async function player(): Promise<void> {
    while (nextRollout < options.rollouts) {
      open++;
      await play(nextRollout++);
    }
  }
  for (let at = 0; at < options.concurrency; at++) playing.push(player());
  for (const { atMs, engine, shut: why } of options.events ?? []) {
    void events.after(atMs).then(() => {
      shut[engine] = why;
      router.changed();
    });
  }
  let isOver = false;
  void Promise.all(playing).finally(() => (isOver = true));
  let readAt = readEveryMs;
  for (;;) {
    await settle();
    if (isOver) break;
    note();
    if (events.nextAt() > readAt) {
      now = readAt;
      readAt += readEveryMs;
      await router.tick();
    } else now = events.run();
  }
  await Promise.all(playing);
  const moves: Record<string, number> = {};
  for (const figures of router.figures()) {
    for (const [reason, count] of Object.entries(figures.moves)) {
      moves[reason] = (moves[reason] ?? 0) + count;
    }
  }
  return {
    withPrefix: (firstFound + laterFound) / (first + later),
    laterWithPrefix: laterFound / later,
    worstOverMean: Math.max(...loads),
    averageOverMean: loads.reduce((sum, one) => sum + one, 0) / loads.length,
    moved,
    movesCounted: Object.values(moves).reduce((sum, count) => sum + count, 0),
    moves,
    busy,
    answered,
    durationMs: now,
  };

  /** What is to happen, in the order of its time. */
  function createQueue() {
    const due: { at: number; go: () => void }[] = [];
    return {
      after: (ms: number) =>
        new Promise<void>((go) => {
          const at = now + ms;
          let place = due.length;
          while (place > 0 && (due[place - 1]?.at ?? 0) > at) place--;
          due.splice(place, 0, { at, go });
        }),
      nextAt: () => due[0]?.at ?? Infinity,
      run(): number {
        const next = due.shift();
        if (!next) throw new Error("nothing is left to happen, and rollouts still wait");
        // Whoever looks at the clock in what follows sees this time.
        now = next.at;
        next.go();
        return next.at;
      },
    };
  }
}

/** Until everything that can go on at this moment has. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function requestOf() {
  return {
    ...{ model: "m@1", prompt: [1], n: 1, maxTokens: 1, temperature: 1, topP: 1, seed: null },
    ...{ stop: [], stopTokenIds: [], stream: false, signal: new AbortController().signal },
  };
}

/** The same numbers for the same seed, evenly in [0, 1). */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
