import {
  HoneError,
  kindOf,
  newId,
  refuseUnknownOptions,
  requireNumber,
  requireObject,
  wrongKind,
} from "@hone/core";
import type { RolloutException, RolloutMode, Trajectory, TrajectoryGroup } from "@hone/core";
import pLimit from "p-limit";
import {
  optionalFunction,
  requireFunction,
  requireList,
  requireSignal,
} from "../argument-kinds.ts";
import { playUncut } from "./away-server.ts";
import { untilFree } from "./busy-server.ts";
import { ComparisonModel } from "./comparison-model.ts";
import { runComparison } from "./comparison-run.ts";
import { GatherError } from "./gather-error.ts";
import type { Policy } from "./policy.ts";
import { gatherWarnings } from "./gather-warnings.ts";
import { CallCounter } from "./rollout-context.ts";
import type { RolloutEnd } from "./rollout-end.ts";
import { createRolloutRequests } from "./rollout-requests.ts";
import { runRollout } from "./rollout-run.ts";
import type { Rollout, RolloutPlace, RolloutRunOptions } from "./rollout-run.ts";
import { throwIfAborted } from "@hone/transport";
import { warn } from "../warn.ts";

export interface GatherOptions {
  /**
   * Rollouts of each scenario. They form a group, and training compares them with one another.
   * @default 8 in mode "train" (a single rollout would train nothing), 1 in mode "eval"
   */
  groupSize?: number | undefined;
  /** Rollouts that run at the same time. @default 32 */
  concurrency?: number | undefined;
  /** How many rollouts may fail: a number, or a share below 1. @default 0 */
  maxExceptions?: number | undefined;
  /** How often a failed rollout is run again, as a new one. @default 0 */
  retries?: number | undefined;
  /** How long one rollout may take. @unit ms @default 600000 */
  timeoutMs?: number | undefined;
  /** Rollouts of mode "eval" are never trained on. @default "train" */
  mode?: RolloutMode | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((event: GatherEvent) => void) | undefined;
  /**
   * Asked about each rollout before it is run: one that an earlier start of the program has finished is taken as it
   * is, in the place of another one.
   */
  finished?: ((place: Omit<RolloutPlace, "attempt">) => Trajectory | undefined) | undefined;
}

type FailedEnd = Extract<RolloutEnd, { error: unknown }>;

interface Counts {
  done: number;
  failed: number;
  total: number;
}

export type GatherEvent =
  | (Counts & {
      type: "rollout-finished";
      group: string;
      trajectory: Trajectory;
      place: RolloutPlace;
      /** Taken as `finished` gave it. */
      known: boolean;
    })
  | (Counts & { type: "rollout-failed"; group: string; exception: RolloutException })
  | (Counts & { type: "rollout-retried"; group: string; exception: RolloutException });

const optionNames = [
  "groupSize",
  "concurrency",
  "maxExceptions",
  "retries",
  "timeoutMs",
  "mode",
  "signal",
  "onProgress",
  "finished",
] as const satisfies (keyof GatherOptions)[];

/**
 * Runs `rollout` `groupSize` times on each scenario and gives a group for each. Failed rollouts are listed in
 * their group's `exceptions`. If more than `maxExceptions` fail, it throws a GatherError, whose `groups` hold
 * what had succeeded.
 */
export async function gather<Scenario>(
  policy: Policy | ComparisonModel,
  rollout: Rollout<Scenario>,
  scenarios: readonly Scenario[],
  options: GatherOptions = {},
): Promise<TrajectoryGroup[]> {
  checkArguments(policy, rollout, scenarios, options);
  const { concurrency = 32, retries = 0, mode = "train" } = options;
  const { groupSize = mode === "train" ? 8 : 1 } = options;
  const { timeoutMs = 600_000, maxExceptions = 0, onProgress } = options;
  requireNumber("groupSize", groupSize, { whole: true, least: 1 });
  requireNumber("concurrency", concurrency, { whole: true, least: 1 });
  requireNumber("retries", retries, { whole: true, least: 0 });
  requireNumber("timeoutMs", timeoutMs, { whole: true, least: 1 });
  const counts: Counts = { done: 0, failed: 0, total: scenarios.length * groupSize };
  const allowed = allowedExceptions(maxExceptions, counts.total);
  if (mode !== "train" && mode !== "eval") {
    throw wrongKind("gather()", '"train" or "eval" as mode', mode, "mode");
  }
  if (policy instanceof ComparisonModel && mode !== "eval") {
    throw new HoneError(
      `${policy.name} is a model to compare with and cannot be trained. Gather with mode "eval".`,
      { code: "invalid_config", param: "mode" },
    );
  }
  throwIfAborted(options.signal);
  // Ends the others when one failure ends the gathering.
  const ending = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, ending.signal]) : ending.signal;
  const run = runnerOf(policy, rollout, signal);
  const limit = pLimit(concurrency);
  // The failure that was one too many.
  let excess: FailedEnd | null = null as FailedEnd | null;
  const groups = scenarios.map((scenario) => ({ id: newId("grp"), scenario }));
  const idle: CallCounter[] = [];

  const runMember = async (
    group: (typeof groups)[number],
    member: Omit<RolloutPlace, "attempt">,
  ): Promise<RolloutEnd> => {
    const known = options.finished?.(member);
    for (let attempt = 0; ; attempt += 1) {
      throwIfAborted(signal);
      const place = { ...member, attempt };
      const how = { group: group.id, place, mode, timeoutMs, signal };
      const end = known
        ? { trajectory: known, calls: new CallCounter() }
        : await run(group.scenario, how);
      if (end.trajectory) {
        const { trajectory } = end;
        counts.done += 1;
        if (trajectory.usage.completions === 0) idle.push(end.calls);
        const told = { group: group.id, trajectory, place, known: known !== undefined };
        onProgress?.({ type: "rollout-finished", ...told, ...counts });
        return end;
      }
      throwIfAborted(signal);
      const { exception } = end;
      if (attempt < retries && !isOfItsCode(exception)) {
        onProgress?.({ type: "rollout-retried", group: group.id, exception, ...counts });
        continue;
      }
      counts.done += 1;
      counts.failed += 1;
      onProgress?.({ type: "rollout-failed", group: group.id, exception, ...counts });
      if (counts.failed > allowed && !ending.signal.aborted) {
        excess = end;
        ending.abort(tooMany(counts, allowed, end, []));
      }
      return end;
    }
  };

  const members = groups.map((group, index) =>
    Array.from({ length: groupSize }, (_, member) =>
      limit(async () => {
        try {
          return await runMember(group, { group: index, member });
        } catch (error) {
          if (!ending.signal.aborted) ending.abort(error);
          throw error;
        }
      }),
    ),
  );
  // Waits for all, also when one has thrown: each marks its rollout on the server as it ends.
  const settled = await Promise.all(members.map((group) => Promise.allSettled(group)));
  throwIfAborted(options.signal);
  const gathered = groups.map(({ id, scenario }, index): TrajectoryGroup => {
    const ends = (settled[index] ?? []).flatMap((end) =>
      end.status === "fulfilled" ? [end.value] : [],
    );
    return {
      id,
      scenario,
      trajectories: ends.flatMap((end) => (end.trajectory ? [end.trajectory] : [])),
      exceptions: ends.flatMap((end) => (end.exception ? [end.exception] : [])),
      metadata: {},
      metrics: {},
      logs: [],
    };
  });
  if (!ending.signal.aborted) {
    for (const message of gatherWarnings(gathered, { mode, groupSize, idle })) {
      warn(message);
    }
    return gathered;
  }
  if (!excess) throw ending.signal.reason;
  throw tooMany(counts, allowed, excess, gathered);
}

function checkArguments(
  policy: unknown,
  rollout: unknown,
  scenarios: unknown,
  options: GatherOptions,
): void {
  const where = "gather()";
  const wanted = "a model, as hone.model() returns it, as its first argument";
  requireObject(where, policy, wanted, "model");
  if (!(policy instanceof ComparisonModel) && !("transport" in policy)) {
    throw wrongKind(where, wanted, policy, "model");
  }
  requireFunction(where, rollout, "rollout");
  requireList(where, scenarios, "scenarios");
  refuseUnknownOptions(where, options, optionNames);
  requireSignal(where, options);
  optionalFunction(where, options.onProgress, "onProgress");
  optionalFunction(where, options.finished, "finished");
}

function runnerOf<Scenario>(
  policy: Policy | ComparisonModel,
  rollout: Rollout<Scenario>,
  signal: AbortSignal,
): (scenario: Scenario, how: RolloutRunOptions) => Promise<RolloutEnd> {
  if (policy instanceof ComparisonModel) {
    return (scenario, how) => runComparison(policy, rollout, scenario, how);
  }
  const { settings, wait } = policy.transport;
  const requests = createRolloutRequests(policy.transport, signal);
  const playOnce = async (scenario: Scenario, how: RolloutRunOptions) => {
    await untilFree(settings, signal);
    return await runRollout(policy, rollout, scenario, { ...how, requests });
  };
  return async (scenario, how) => playUncut(wait, signal, () => playOnce(scenario, how));
}

/** Whether the fault is in the rollout's code, so that a retry would fail too: no reward, or another's client. */
function isOfItsCode({ type }: RolloutException): boolean {
  return type === "invalid_reward" || type === "rollout_mismatch";
}

function allowedExceptions(maxExceptions: number, total: number): number {
  if (typeof maxExceptions !== "number" || !(maxExceptions >= 0)) {
    throw new HoneError(
      `maxExceptions is a number of rollouts, or a share below 1, not ${kindOf(maxExceptions)}.`,
      { code: "invalid_config", param: "maxExceptions" },
    );
  }
  return Math.floor(maxExceptions < 1 ? maxExceptions * total : maxExceptions);
}

function tooMany(
  { failed, total }: Counts,
  allowed: number,
  { exception: last, error: cause }: FailedEnd,
  groups: TrajectoryGroup[],
): GatherError {
  const during = last.duringCall === null ? "" : ` in model call ${last.duringCall}`;
  return new GatherError(
    `${failed} of ${total} rollouts failed and maxExceptions allows ${allowed}. The last one${during}: ${last.type}: ${last.message}`,
    { code: "too_many_exceptions", cause, groups },
  );
}
