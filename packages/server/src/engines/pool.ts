import { realpath } from "node:fs/promises";
import { HoneError } from "@hone/core";
import pLimit, { type LimitFunction } from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Engine, Engines } from "../ports/engine.ts";
import type { LiveAdapter, LiveBase } from "../ports/live-set.ts";
import { createLiveAdapters, type LiveSetView } from "./live-set.ts";
import { createEngineRouter, type EngineLease, type Routable } from "./router.ts";

/** One engine process, as whoever watches it describes it. */
interface Replica {
  /** For logs and for those who report on it. */
  name: string;
  engine: Engine;
  /** Throws why it takes no traffic, while it does not. */
  requireUp: () => unknown;
  /** It lags behind the others and gets no traffic until it was admitted again. */
  onFenced?: (() => void) | undefined;
}

/** The engines between traffic and drivers. One engine is a pool of one. */
export interface EnginePool extends Engines {
  /** Of those that serve the policy the one with the fewest leases. Throws why there is none. */
  lease(policy: string): EngineLease;
  /** It answers: it gets what is live, and takes traffic once this resolves. Where it rejects, it takes none. */
  admit(name: string): Promise<void>;
  /** It is gone, or cannot be trusted: no more leases until it is admitted again. */
  fence(name: string): void;
  /** Asks the engine now which live policies it does not serve from their folders. */
  missing(name: string): Promise<string[]>;
  /** What every engine that takes traffic serves. */
  readonly liveSet: LiveSetView;
}

interface Member extends Replica {
  /** While it is loading, it gets the policies that others get, and no traffic. */
  state: "away" | "loading" | "serving";
  /** What this server loaded itself. Other adapters are not trusted, also under our names and paths: an earlier data
   * directory may have stood in the same place. */
  adapters: Set<string>;
  /** One load or unload at a time: the same policy may be wanted by a publication and an admission. */
  turn: LimitFunction;
}

export function createEnginePool(options: {
  replicas: readonly Replica[];
  /** Makes live, by `load`, what must be; runs in each admission. */
  restore: () => Promise<void>;
  /** What all engines sample from. Asked when somebody asks for the live set. */
  base: () => LiveBase;
  log: Logger;
}): EnginePool {
  const { log } = options;
  const members = options.replicas.map((replica): Member => ({
    ...replica,
    state: "away",
    adapters: new Set(),
    turn: pLimit(1),
  }));
  const router = createEngineRouter();
  /** What every member that takes traffic serves. */
  const live = createLiveAdapters(options.base);
  /** What is being loaded on all and is not live yet. An admission must not take it for what nobody needs. */
  const publishing = new Set<string>();
  const oneByOne = pLimit(1);

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
    return new HoneError(
      "The engine is getting its policies. Send the request again in a moment.",
      {
        code: "engine_unavailable",
        retryAfterMs: 1000,
      },
    );
  }

  function fence(name: string): void {
    memberOf(name).state = "away";
  }

  /** The engines that may sample from the policy. Throws why there is none. */
  function able(policy: string): [Routable, ...Routable[]] {
    const [first, ...rest] = members.filter(
      ({ state, adapters }) => state === "serving" && (!live.has(policy) || adapters.has(policy)),
    );
    if (!first) throw noneUp();
    return [first, ...rest];
  }

  function lease(policy: string): EngineLease {
    return router.lease(able(policy));
  }

  /**
   * Asks the engine also where memory says that it serves the policy: it may be another process by now. Its
   * list says which folder: one that outlives a server, or that two servers use, serves other weights under
   * the same name.
   */
  async function load({ engine, adapters }: Member, adapter: LiveAdapter): Promise<void> {
    const { policy } = adapter;
    const served = await engine.served();
    const isOurs = await isFrom(served, policy, adapter);
    if (adapters.has(policy) && isOurs) return;
    adapters.delete(policy);
    if (served.has(policy)) {
      if (isOurs) {
        log.info({ policy }, "an earlier server loaded this policy: loading it again");
      } else {
        log.warn(
          { policy, root: served.get(policy) },
          "the engine serves other weights under this name: they give way to this server's. " +
            "Servers that share an engine need model names of their own",
        );
      }
      await engine.unload(policy);
    }
    await engine.load(adapter);
    fault("publish.after-load");
    if (!(await isFrom(await engine.served(), policy, adapter))) {
      throw new HoneError(
        `The engine took ${policy} but does not serve it from its checkpoint. ` +
          "Look whether another server loads policies of the same name into this engine.",
        { code: "engine_error" },
      );
    }
    adapters.add(policy);
  }

  /** The live policies that the member does not serve. They are taken out of its `adapters`. */
  async function lostBy(member: Member): Promise<string[]> {
    // Taken before the engine is asked: what is loaded while it answers may be missing in its answer and is not lost.
    const before = [...member.adapters];
    const served = await member.engine.served();
    for (const policy of before) {
      const adapter = live.get(policy);
      const isThere = adapter ? await isFrom(served, policy, adapter) : served.has(policy);
      if (!isThere) member.adapters.delete(policy);
    }
    return live.policies().filter((policy) => !member.adapters.has(policy));
  }

  /** Resolves once the member holds what is live and nothing else. What it kept while it was away may be over. */
  async function catchUp(member: Member): Promise<void> {
    const isOver = (policy: string): boolean => !live.has(policy) && !publishing.has(policy);
    await lostBy(member);
    for (const policy of [...member.adapters].filter(isOver)) {
      await member.turn(async () => {
        // It may have been published again while this waited for its turn.
        if (isOver(policy)) await letGo(member, policy);
      });
    }
    for (;;) {
      // Looked up anew each time: what is live changes while the member loads.
      const lacking = live.current().adapters.find(({ policy }) => !member.adapters.has(policy));
      if (!lacking) return;
      await member.turn(load, member, lacking);
    }
  }

  async function letGo({ engine, adapters }: Member, policy: string): Promise<void> {
    adapters.delete(policy);
    await engine.unload(policy).catch((error: unknown) => {
      log.warn({ policy, err: error }, "a policy that nobody needs could not be unloaded");
    });
  }

  /** Loads on all that are present, also on those that come while others load. Gives those that failed. */
  async function loadOnAll(adapter: LiveAdapter): Promise<Map<Member, unknown>> {
    const { policy } = adapter;
    const failures = new Map<Member, unknown>();
    const asked = new Set<Member>();
    let targets = present();
    while (targets.length > 0) {
      await Promise.all(
        targets.map(async (member) => {
          asked.add(member);
          await member
            .turn(load, member, adapter)
            .catch((error: unknown) => failures.set(member, error));
        }),
      );
      targets = members.filter(
        (member) =>
          member.state !== "away" && !failures.has(member) && !member.adapters.has(policy),
      );
    }
    if (failures.size === asked.size) throw [...failures.values()][0];
    return failures;
  }

  return {
    lease,
    fence,

    async info() {
      const { engine, release } = lease("");
      release();
      return engine.info();
    },

    generate: (request) => router.generate(request, () => able(request.model)),

    admit: (name) =>
      oneByOne(async () => {
        const member = memberOf(name);
        member.state = "loading";
        try {
          await options.restore();
          await catchUp(member);
          // It may have been fenced while it loaded.
          if ((member.state as Member["state"]) === "away") throw noneUp();
          member.state = "serving";
        } catch (error) {
          member.state = "away";
          throw error;
        }
      }),

    async load(adapter) {
      const { policy } = adapter;
      publishing.add(policy);
      let failures: ReadonlyMap<Member, unknown>;
      try {
        failures = await loadOnAll(adapter);
        live.add(adapter);
      } catch (error) {
        // Also where no engine is there to be asked: the caller counts it no more, so one that comes back
        // with it has to let go of it.
        live.remove(policy);
        throw error;
      } finally {
        publishing.delete(policy);
      }
      for (const [member, error] of failures) {
        log.error({ engine: member.name, policy, err: error }, "the engine lags and is fenced off");
        fence(member.name);
        member.onFenced?.();
      }
    },

    async unload(policy) {
      live.remove(policy);
      const results = await Promise.allSettled(
        present().map(({ engine, adapters, turn }) =>
          turn(() => {
            adapters.delete(policy);
            return engine.unload(policy);
          }),
        ),
      );
      for (const result of results) if (result.status === "rejected") throw result.reason;
    },

    liveSet: live,

    missing: (name) => lostBy(memberOf(name)),

    async takeLost() {
      const lost = await Promise.all(present().map(lostBy));
      const byAll = lost.reduce((some, more) => some.filter((policy) => more.includes(policy)));
      for (const policy of byAll) live.remove(policy);
      return byAll;
    },

    async unloadStale(isOver) {
      for (const { engine } of present()) {
        for (const [policy, path] of await engine.served()) {
          if (live.has(policy) || !isOver(policy, path)) continue;
          await engine.unload(policy).catch((error: unknown) => {
            log.warn({ policy, err: error }, "a policy of a deleted model stays in the engine");
          });
        }
      }
    },
  };
}

async function isFrom(
  served: ReadonlyMap<string, string>,
  policy: string,
  { path, sha256 }: LiveAdapter,
): Promise<boolean> {
  const root = served.get(policy);
  if (root === undefined) return false;
  if (root === path || root === `sha256:${sha256}`) return true;
  const [real, realPath] = await Promise.all(
    [root, path].map((folder) => realpath(folder).catch(() => null)),
  );
  return real !== null && real === realPath;
}
