import { HoneError } from "@hone/core";
import pLimit, { type LimitFunction } from "p-limit";
import type { Logger } from "pino";
import type { Engines } from "../ports/engine.ts";
import type { LiveAdapter, LiveBase, ProbeAnswer } from "../ports/live-set.ts";
import { createLiveAdapters, type LiveSetView } from "./live-set.ts";
import { forgetWrong, type Holding, isFrom, letGo, prepare } from "./prepare.ts";
import { lateError, noneReady, noneServes, reasonOf } from "./pool-errors.ts";
import type { EngineStatus, Replica } from "./pool-members.ts";
import { requireBase } from "./probe.ts";
import { untilReadyOrLate } from "./publication.ts";
import type { Route } from "./placement.ts";
import type { EngineSnapshot } from "./router-figures.ts";
import { createEngineRouter, type EngineLease } from "./router.ts";
import { within } from "./within.ts";

export type { EngineStatus, Replica };

/** The engines between traffic and drivers. One engine is a pool of one. */
export interface EnginePool extends Engines {
  /** Of those that serve the policy the least loaded one. Throws why there is none. */
  lease(policy: string): EngineLease;
  /** It answers: it gets what is live, and takes traffic once this resolves. Where it rejects, it takes none. */
  admit(name: string): Promise<void>;
  /** The same process has its memory back: what does not answer its probe any more is forgotten, and so loaded anew. */
  recheck(name: string): Promise<void>;
  /** It is gone, or cannot be trusted: no more leases until it is admitted again. */
  fence(name: string): void;
  /** Asks the engine now which live policies it does not serve from their folders, but for those that it does without. */
  missing(name: string): Promise<string[]>;
  /** What every engine that takes traffic serves. */
  readonly liveSet: LiveSetView;
  /** Whether each engine takes traffic, and why one is kept from it. */
  status(): EngineStatus[];
  /** What the engines that hold the policy answered to its probe, the first of them; null without a probe or an engine. */
  answerOf(policy: string): ProbeAnswer | null;
  /** Reads the engines' metrics, by which requests are spread. To be called every second. */
  readLoads(): Promise<void>;
  /** How loaded each engine is. */
  loads(): EngineSnapshot[];
  /** One more, which takes no traffic until it was admitted. */
  add(replica: Replica): void;
  /** It is no part of the pool any more. The requests in flight on it finish there. */
  remove(name: string): void;
}

const defaultPublishDeadlineMs = 10_000;
/** How long those that come back wait for the lists of the others, of which one may hang. */
const defaultListsMs = 5_000;

interface Member extends Replica, Holding {
  /** While it is loading, it gets the policies that others get, and no traffic. */
  state: "away" | "loading" | "serving";
  /** Why it takes no traffic although it may answer. Null while it serves, and where whoever watches it knows. */
  reason: string | null;
  fences: number;
  /** Live policies that it does without until it is away again: their files were damaged when it wanted them. */
  without: Set<string>;
  /** One load or unload at a time: the same policy may be wanted by a publication and an admission. */
  turn: LimitFunction;
}

export function createEnginePool(options: {
  replicas: readonly Replica[];
  /** Makes live, by `load`, what must be; runs in each admission. */
  restore: () => Promise<void>;
  /** What all engines sample from. Asked when somebody asks for the live set. */
  base: () => LiveBase;
  /** From when on an engine that is not ready for a policy is fenced, if another is. @default 10 s */
  deadlineMs?: number | undefined;
  /** How long one engine's list may hold up the others. @default 5 s */
  listsMs?: number | undefined;
  /** What an engine's logprobs may differ by from the trainer's. @default 0.001 in float32, 0.2 in bfloat16 */
  tolerance?: (() => number | undefined) | undefined;
  /**
   * Looks at the files of a policy that has been live for some time, before an engine that was away loads it. Where it
   * throws `bad_adapter`, the engine serves all else, and the policy is left to the engines that have it already.
   */
  verify?: ((adapter: LiveAdapter) => Promise<void>) | undefined;
  log: Logger;
}): EnginePool {
  const { log, deadlineMs = defaultPublishDeadlineMs, listsMs = defaultListsMs } = options;
  const members: Member[] = [];
  for (const replica of options.replicas) add(replica);
  /** What every member that takes traffic serves. */
  const live = createLiveAdapters(options.base);
  const router = createEngineRouter({
    routes,
    noneOpen: noneUp,
    distrust(name, why) {
      const member = members.find((one) => one.name === name);
      if (member?.state !== "serving") return;
      // Each of its policies is loaded again and has to answer its probe before it takes traffic.
      member.adapters.clear();
      fenceOff(member, null, new HoneError(why, { code: "engine_error" }));
    },
    maxSequences: (name) => members.find((one) => one.name === name)?.maxSequences?.(),
    log,
  });
  /** What is being loaded on all and is not live yet. An admission must not take it for what nobody needs. */
  const publishing = new Set<string>();
  const oneByOne = pLimit(1);

  function add(replica: Replica): void {
    if (members.some(({ name }) => name === replica.name)) {
      throw new Error(`there are two engines "${replica.name}"`);
    }
    members.push({
      ...replica,
      ...{ state: "away", reason: null, fences: 0 },
      ...{ adapters: new Map(), leftovers: new Set(), without: new Set(), turn: pLimit(1) },
    });
  }

  function memberOf(name: string): Member {
    const found = members.find((member) => member.name === name);
    if (!found) throw new Error(`there is no engine "${name}"`);
    return found;
  }

  function present(): Member[] {
    const found = members.filter(({ state }) => state !== "away");
    if (found.length === 0) throw noneUp();
    return found;
  }

  function noneUp(): unknown {
    try {
      for (const member of members) member.requireUp();
    } catch (error) {
      return error;
    }
    return noneServes(members.length);
  }

  function fence(name: string): void {
    const member = members.find((one) => one.name === name);
    // It may have been removed meanwhile.
    if (member) {
      member.state = "away";
      member.without.clear();
    }
    router.changed();
  }

  /** How each engine stands to requests for the policy. */
  function routes(policy: string): Route[] {
    return members.map(({ name, engine, state, adapters }): Route => {
      if (state !== "serving") return { name, engine, shut: "fenced" };
      const lacks = live.has(policy) && !adapters.has(policy);
      return { name, engine, shut: lacks ? "lacks_policy" : null };
    });
  }

  const isUnwanted = (policy: string): boolean => !live.has(policy) && !publishing.has(policy);

  /** Resolves once the member is ready to serve the adapter. It does not keep one that came too late to be wanted. */
  const getReady = (member: Member, adapter: LiveAdapter): Promise<void> =>
    member.turn(async () => {
      await prepare(member.engine, member, adapter, {
        ...options,
        log: log.child({ engine: member.name }),
      });
      member.without.delete(adapter.policy);
      if (isUnwanted(adapter.policy)) await letGo(member.engine, member, adapter.policy, log);
    });

  /** The live policies that the member does not serve. They are taken out of its `adapters`. */
  async function lostBy(member: Member): Promise<string[]> {
    // Taken before the engine is asked: what is loaded while it answers may be missing in its answer and is not lost.
    const before = [...member.adapters.keys()];
    const served = await member.engine.served();
    for (const policy of before) {
      const adapter = live.get(policy);
      const isThere = adapter ? await isFrom(served, adapter) : served.has(policy);
      if (!isThere) member.adapters.delete(policy);
    }
    return live.policies().filter((policy) => !member.adapters.has(policy));
  }

  /** Resolves once the member holds what is live and nothing else. What it kept while it was away may be over. */
  async function catchUp(member: Member): Promise<void> {
    await lostBy(member);
    for (const policy of [...member.adapters.keys(), ...member.leftovers].filter(isUnwanted)) {
      await member.turn(async () => {
        // It may have been published again while this waited for its turn.
        if (isUnwanted(policy)) await letGo(member.engine, member, policy, log);
      });
    }
    for (;;) {
      // Looked up anew each time: what is live changes while the member loads.
      const lacking = live.current().adapters.find(({ policy }) => isMissed(member, policy));
      if (!lacking) return;
      if (await isWhole(member, lacking)) await getReady(member, lacking);
      else member.without.add(lacking.policy);
    }
  }

  const isMissed = ({ adapters, without }: Member, policy: string): boolean =>
    !adapters.has(policy) && !without.has(policy);

  async function isWhole({ name }: Member, adapter: LiveAdapter): Promise<boolean> {
    try {
      await options.verify?.(adapter);
      return true;
    } catch (error) {
      if (!HoneError.isInstance(error) || error.code !== "bad_adapter") throw error;
      const { policy } = adapter;
      log.error({ engine: name, policy, err: error }, "the engine does without a damaged policy");
      return false;
    }
  }

  /**
   * Makes all that are present ready, also those that come while others load. Resolves, once the adapter may become live,
   * to why engines that take traffic are not ready. Throws where none is.
   */
  async function prepareOnAll(adapter: LiveAdapter): Promise<Map<Member, unknown>> {
    const { policy } = adapter;
    const failures = new Map<Member, unknown>();
    const tries = new Map<Member, Promise<{ ready: boolean }>>();
    const waitedFor = new Set<Member>();
    const isReady = ({ state, adapters }: Member): boolean =>
      state !== "away" && adapters.has(policy);
    const tryOn = async (member: Member): Promise<{ ready: boolean }> => {
      await getReady(member, adapter).catch((error: unknown) => failures.set(member, error));
      return { ready: isReady(member) };
    };
    const open = (some: readonly Member[]) => some.filter((one) => !waitedFor.has(one));
    for (let here = present(); ; here = members.filter(({ state }) => state !== "away")) {
      for (const member of here) if (!tries.has(member)) tries.set(member, tryOn(member));
      let targets = open(here.filter(({ state }) => state === "serving"));
      // One that is still getting what is live, and may hang over it, is waited for only where there is no other.
      if (targets.length === 0 && !members.some(isReady)) targets = open(here);
      if (targets.length === 0) break;
      for (const member of targets) waitedFor.add(member);
      await untilReadyOrLate(
        targets.map((member) => tries.get(member)!),
        deadlineMs,
        members.some(isReady),
      );
    }
    if (!members.some(isReady)) {
      throw noneReady(policy, new Map(members.map((one) => [one.name, failures.get(one)])));
    }
    for (const member of members) {
      if (member.state === "serving" && !isReady(member) && !failures.has(member)) {
        failures.set(member, lateError(policy, deadlineMs));
      }
    }
    return failures;
  }

  function fenceOff(member: Member, policy: string | null, error: unknown): void {
    // It may have been removed, and another have its name.
    if (!members.includes(member)) return;
    log.error({ engine: member.name, policy, err: error }, "the engine is fenced off");
    member.fences++;
    member.reason = reasonOf(error);
    fence(member.name);
    member.onFenced?.();
  }

  return {
    lease: (policy) => router.lease(policy),
    generate: (request) => router.generate(request),
    rolloutEnded: (rollout) => router.rolloutEnded(rollout),
    readLoads: () => router.tick(),
    loads: () => router.figures(),
    fence,
    add,

    remove(name) {
      const at = members.findIndex((member) => member.name === name);
      if (at < 0) return;
      fence(name);
      members.splice(at, 1);
    },

    async info() {
      const { engine, release } = router.lease("");
      release();
      return engine.info();
    },

    async admit(name) {
      const member = memberOf(name);
      // One that does not answer must not keep others from being admitted.
      await lostBy(member);
      try {
        await oneByOne(async () => {
          member.state = "loading";
          await options.restore();
        });
        // Each on its own: one that hangs over a policy must not keep the others from coming back.
        await catchUp(member);
        // It may have been fenced while it loaded.
        if (member.state === "away") throw noneUp();
        member.state = "serving";
        member.reason = null;
        router.changed();
      } catch (error) {
        member.state = "away";
        member.reason = reasonOf(error) ?? member.reason;
        throw error;
      }
    },

    async recheck(name) {
      const member = memberOf(name);
      await lostBy(member);
      await forgetWrong(member.engine, member, (policy) => live.get(policy), options);
    },

    async load(adapter) {
      const { policy } = adapter;
      publishing.add(policy);
      let failures: ReadonlyMap<Member, unknown>;
      try {
        failures = await prepareOnAll(adapter);
        live.add(adapter);
      } catch (error) {
        // Also where no engine is there to be asked: the caller counts it no more, so one that comes back
        // with it has to let go of it.
        live.remove(policy);
        throw error;
      } finally {
        publishing.delete(policy);
      }
      for (const [member, error] of failures) fenceOff(member, policy, error);
    },

    async unload(policy) {
      live.remove(policy);
      const results = await Promise.allSettled(
        present().map(({ engine, adapters, leftovers, state, turn }) => {
          const gone = turn(async () => {
            if (!isUnwanted(policy)) return;
            adapters.delete(policy);
            leftovers.add(policy);
            await engine.unload(policy);
            leftovers.delete(policy);
          });
          // One that is still getting what is live may hang over it: nobody waits for that.
          return state === "serving" ? gone : Promise.race([gone, Promise.resolve()]);
        }),
      );
      for (const result of results) if (result.status === "rejected") throw result.reason;
    },

    liveSet: live,
    status: () =>
      members.map(({ name, state, reason, fences, adapters }) => ({
        ...{ name, state, reason, fences },
        policies: [...adapters.keys()],
      })),

    answerOf: (policy) =>
      members.map(({ adapters }) => adapters.get(policy)).find((one) => one !== undefined) ?? null,

    async missing(name) {
      const member = memberOf(name);
      return (await lostBy(member)).filter((policy) => isMissed(member, policy));
    },

    async takeLost() {
      // Of one that does not answer, or not soon, nothing is lost: it is asked again before it takes traffic.
      const lost = await Promise.all(
        present().map((one) => within(listsMs, lostBy(one).catch(noPolicies), [])),
      );
      const byAll = lost.reduce((some, more) => some.filter((policy) => more.includes(policy)));
      for (const policy of byAll) live.remove(policy);
      return byAll;
    },

    async unloadStale(isOver) {
      const unloadFrom = async ({ engine, turn }: Member): Promise<void> => {
        const served = await engine.served().catch(() => new Map<string, string>());
        for (const [policy, path] of served) {
          await turn(async () => {
            // A model of the same name may have been made while this waited.
            if (!isUnwanted(policy) || !isOver(policy, path)) return;
            await engine.unload(policy).catch((error: unknown) => {
              log.warn({ policy, err: error }, "a policy of a deleted model stays in the engine");
            });
          });
        }
      };
      // Nobody needs the room at once: what takes longer goes on by itself.
      await within(listsMs, Promise.all(present().map(unloadFrom)), []);
    },

    requireBase: () => requireBase(present(), options.base().name),
  };
}

const noPolicies = (): string[] => [];
