import type { Affinity, Engine } from "../ports/engine.ts";
import { compareRanks } from "../ports/ranks.ts";
import { hasCapacity, loadOf, type EngineLoad, type EngineLoads } from "./engine-loads.ts";

/** Why a rollout's next turn goes to another engine than its last one. */
export type MoveReason = "fenced" | "draining" | "lacks_policy" | "gone" | "kv_full" | "failed";

/** An engine as it stands to requests for one policy. */
export interface Route {
  name: string;
  engine: Engine;
  /** Why it may not have such a request now; null where it may. */
  shut: "fenced" | "draining" | "lacks_policy" | null;
}

/** A rollout's place on an engine, from its first completion to its end. */
export interface Seat {
  load: EngineLoad;
  /** Requests of the rollout that are on an engine now. */
  turns: number;
  usedAt: number;
  /** Its last turn failed there. */
  failed: boolean;
  group: Group | null;
}

interface Group {
  key: string;
  /** Where its members are, in the order in which they came there. */
  engines: string[];
  members: number;
}

export interface Placed {
  route: Route;
  load: EngineLoad;
  /** Null for a request outside of rollouts. */
  seat: Seat | null;
}

/** Which engine a request belongs to. A rollout's turns have its conversation in common, a group's rollouts their prompt. */
export interface Placement {
  /**
   * The engine that the request belongs to now, or null where no route is open. The first time it takes a seat for
   * the rollout; a rollout that has one keeps it, unless it has to move.
   */
  place(
    request: { policy: string; sequences: number; affinity: Affinity | null },
    routes: readonly Route[],
    avoid?: ReadonlySet<string>,
  ): Placed | null;
  /** The least loaded of these. */
  least(routes: readonly [Route, ...Route[]]): Route;
  /** The rollout is over. */
  end(rollout: string): void;
  /** Forgets rollouts that have asked for nothing in a long time. They are placed anew when they ask again. */
  sweep(): void;
  /** How often rollouts left an engine. */
  moves(): { engine: string; reason: MoveReason; count: number }[];
}

/** While an engine's load is below this, a group stays together whatever the others have: that of eight rollouts. */
const alwaysRoom = 16;
/** Above it, a group leaves its engine when that has so many times the mean load. */
const mostOverMean = 1.25;
const kvFull = 0.9;
/** An engine that rollouts are moved to for its KV memory has less than this in use. */
const kvFree = 0.8;
/** Ended groups whose engine is remembered: its next rollouts find their prompt there. */
const rememberedGroups = 1024;
const idleMs = 30 * 60_000;

export function createPlacement(options: { loads: EngineLoads; now: () => number }): Placement {
  const { loads, now } = options;
  const seats = new Map<string, Seat>();
  const groups = new Map<string, Group>();
  const moves = new Map<string, { engine: string; reason: MoveReason; count: number }>();

  function leastOf(routes: readonly [Route, ...Route[]], sequences = 1): Route {
    const [first, ...rest] = routes;
    const rank = (route: Route): number[] => {
      const load = loads.of(route);
      const isSuspect = load.suspectUntil > now() ? 1 : 0;
      return [isSuspect, hasCapacity(load, sequences) ? 0 : 1, loadOf(load)];
    };
    return rest.reduce(
      (least, one) => (compareRanks(rank(one), rank(least)) < 0 ? one : least),
      first,
    );
  }

  function hasRoom(load: EngineLoad, open: readonly Route[]): boolean {
    if (load.suspectUntil > now() || (load.hint?.kvUse ?? 0) > kvFull) return false;
    // Where all are full, a group waits where its prompt is.
    if (isFull(load) && !open.every((route) => isFull(loads.of(route)))) return false;
    const total = open.reduce((sum, route) => sum + loadOf(loads.of(route)), 0);
    return loadOf(load) < Math.max(alwaysRoom, (mostOverMean * (total + 1)) / open.length);
  }

  /** The group's engine while it has room, else another one that the group is on, else the least loaded. */
  function pick(group: Group | null, open: readonly [Route, ...Route[]], sequences: number): Route {
    for (const name of group?.engines ?? []) {
      const route = open.find((one) => one.name === name);
      if (route && hasRoom(loads.of(route), open)) return route;
    }
    return leastOf(open, sequences);
  }

  function groupOf(policy: string, { group }: Affinity): Group | null {
    if (group === null) return null;
    // What rollouts of different policies share is text only.
    const key = `${policy}\n${group}`;
    const found = groups.get(key) ?? { key, engines: [], members: 0 };
    groups.delete(key);
    groups.set(key, found);
    if (groups.size > rememberedGroups) forgetOldest();
    return found;
  }

  function forgetOldest(): void {
    for (const [key, { members }] of groups) {
      if (members > 0) continue;
      groups.delete(key);
      return;
    }
  }

  function sit(seat: Seat, load: EngineLoad): void {
    seat.load = load;
    seat.failed = false;
    load.rollouts++;
    if (seat.group && !seat.group.engines.includes(load.name)) seat.group.engines.push(load.name);
  }

  function leave(rollout: string, seat: Seat): void {
    seats.delete(rollout);
    seat.load.rollouts--;
    if (seat.group) seat.group.members--;
  }

  function whyMove(
    seat: Seat,
    routes: readonly Route[],
    open: readonly Route[],
  ): MoveReason | null {
    const { load } = seat;
    const route = routes.find(({ name }) => name === load.name);
    if (!route) return "gone";
    if (route.shut) return route.shut;
    // Where this request was tried already, or where the last turn failed and there is another one.
    if (!open.includes(route) || (seat.failed && open.length > 1)) return "failed";
    const lacksMemory = load.preempting && (load.hint?.kvUse ?? 0) > kvFull;
    if (!lacksMemory || seat.turns > 0 || load.kvMovesLeft < 1) return null;
    const hasBetter = open.some((one) => {
      const other = loads.of(one);
      return (other.hint?.kvUse ?? 0) < kvFree && loadOf(other) < loadOf(load);
    });
    return hasBetter ? "kv_full" : null;
  }

  function countMove(engine: string, reason: MoveReason): void {
    const key = `${engine}\n${reason}`;
    const entry = moves.get(key) ?? { engine, reason, count: 0 };
    entry.count++;
    moves.set(key, entry);
  }

  return {
    least: (routes) => leastOf(routes),

    place({ policy, sequences, affinity }, routes, avoid) {
      const untried = routes.filter(({ shut, name }) => shut === null && !avoid?.has(name));
      const [first, ...rest] =
        untried.length > 0 ? untried : routes.filter(({ shut }) => shut === null);
      if (!first) return null;
      const open: [Route, ...Route[]] = [first, ...rest];
      if (!affinity) {
        const route = leastOf(open, sequences);
        return { route, load: loads.of(route), seat: null };
      }
      const held = seats.get(affinity.rollout);
      const reason = held ? whyMove(held, routes, open) : null;
      if (held && reason === null) {
        Object.assign(held, { usedAt: now(), failed: false });
        const route = open.find(({ name }) => name === held.load.name);
        if (route) return { route, load: held.load, seat: held };
      }
      const seat: Seat = held ?? {
        ...{ turns: 0, usedAt: 0, failed: false },
        load: loads.of(first),
        group: groupOf(policy, affinity),
      };
      seat.usedAt = now();
      let others = open;
      if (held && reason !== null) {
        held.load.rollouts--;
        if (reason === "kv_full") held.load.kvMovesLeft--;
        countMove(held.load.name, reason);
        const [other, ...more] = open.filter(({ name }) => name !== held.load.name);
        if (other) others = [other, ...more];
      } else if (seat.group) {
        seat.group.members++;
      }
      const route = pick(seat.group, others, sequences);
      sit(seat, loads.of(route));
      seats.set(affinity.rollout, seat);
      return { route, load: seat.load, seat };
    },

    end(rollout) {
      const seat = seats.get(rollout);
      if (seat) leave(rollout, seat);
    },

    sweep() {
      const since = now() - idleMs;
      for (const [rollout, seat] of seats) {
        if (seat.turns === 0 && seat.usedAt < since) leave(rollout, seat);
      }
    },

    moves: () => [...moves.values()],
  };
}

function isFull(load: EngineLoad): boolean {
  return load.waiting > 0 || !hasCapacity(load, 1);
}
