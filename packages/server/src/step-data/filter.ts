import {
  type CompletionTraining,
  differsWithin,
  type DropReason,
  type filtersSchema,
  parseModelRef,
  type TrainResult,
  whyNotCompared,
} from "@hone/core";
import type { z } from "zod";
import { continuedIds } from "../conversation/continuation.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";

interface FilterMember {
  rolloutId: string;
  reward: number | null;
  completions: readonly LedgerCompletion[];
  /** Of completions that are trained in another way than the reward says, by id. */
  training?: ReadonlyMap<string, CompletionTraining> | undefined;
}

export interface FilterGroup {
  id: string;
  /** Whoever should have scored the group could not: none of its rewards counts. */
  failed: "judge_failed" | "zero_variance" | null;
  members: readonly FilterMember[];
}

export interface FilterOptions extends z.output<typeof filtersSchema> {
  /** False: rewards are not compared, and every rollout trains, whatever its reward and those of its group. @default true */
  compares?: boolean | undefined;
  /** Ids of the completions that have a teacher. @default all */
  taught?: ReadonlySet<string> | undefined;
  /** The policy that is trained, N. */
  step: number;
  maxSequenceTokens: number;
}

/** A rollout that takes part: all of them count in R, only the trainable ones are trained. */
export interface SelectedRollout {
  id: string;
  /** Null only where rewards are not compared. */
  reward: number | null;
  /** Index of its group in the operation. */
  group: number;
  trainable: boolean;
}

export interface SelectedCompletion extends Omit<CompletionTraining, "trainable"> {
  id: string;
  /** Index into the selected rollouts. */
  rollout: number;
  /** False: context of those that train. */
  trainable: boolean;
}

export interface Selection {
  rollouts: SelectedRollout[];
  /** Those that train and those that they continue, parents first. */
  completions: SelectedCompletion[];
  groups: TrainResult["groups"];
  reasons: TrainResult["reasons"];
  warnings: string[];
  trainableRollouts: number;
  /** Sampled tokens that train. */
  tokens: number;
}

type GroupOutcome = TrainResult["groups"][number];
type CompletionMasks = Pick<
  FilterOptions,
  "allowConstrained" | "maskTruncatedCompletions" | "taught"
> & {
  /** Completions that the client says never train. */
  excluded?: ReadonlySet<string>;
};
/** Why each completion that counts is left out of the loss, by id; null where it trains. */
type CompletionMaskReasons = Map<string, DropReason | null>;
type Counts = Partial<Record<DropReason, number>>;
type Filters<Of extends unknown[]> = readonly (readonly [DropReason, (...of: Of) => boolean])[];

// The filters by level, below that of the groups (whyNotCompared). Of those that apply, the first of a level gives
// the reason.

/** Rollouts of which a completion that would train is out of bounds; `tokens` are those of its sequence. */
const rolloutFilters: Filters<[of: LedgerCompletion, tokens: number, options: FilterOptions]> = [
  ["too_long", (_, tokens, { maxSequenceTokens }) => tokens > maxSequenceTokens],
  ["stale", ({ policy }, _, { step, maxStaleness }) => step - stepOf(policy) > maxStaleness],
];

/** Completions that are left out of the loss, and are context of those that train. */
const completionFilters: Filters<[of: LedgerCompletion, options: CompletionMasks]> = [
  ["excluded", ({ id }, { excluded }) => excluded?.has(id) ?? false],
  ["constrained", (of, { allowConstrained }) => !allowConstrained && isConstrained(of)],
  [
    "truncated",
    ({ finishReason }, options) => options.maskTruncatedCompletions && finishReason === "length",
  ],
  ["no_teacher", ({ id }, { taught }) => taught !== undefined && !taught.has(id)],
];

/** The first filter of a level that applies. */
function reasonOf<Of extends unknown[]>(filters: Filters<Of>, ...of: Of): DropReason | null {
  return filters.find(([, applies]) => applies(...of))?.[0] ?? null;
}

/**
 * Rewards first (missing ones, groups that compare nothing), then the masks: a rollout that is masked still
 * counts in its group's baseline and in R, so that the masks do not change what the others are compared with.
 */
export function selectForTraining(
  groups: readonly FilterGroup[],
  options: FilterOptions,
): Selection {
  const selection: Selection = {
    rollouts: [],
    completions: [],
    groups: [],
    reasons: {},
    warnings: [],
    trainableRollouts: 0,
    tokens: 0,
  };
  let equalAtTemperature0 = 0;
  groups.forEach((group, index) => {
    const outcome = filterGroup(group, index, options, selection);
    selection.groups.push(outcome);
    if (outcome.reason === null) return;
    count(selection.reasons, outcome.reason);
    if (outcome.reason === "zero_variance" && everyTemperatureIs0(group)) equalAtTemperature0++;
  });
  if (equalAtTemperature0 > 0) {
    selection.warnings.push(
      `${equalAtTemperature0} group(s) have equal rewards and were sampled at temperature 0: the agent asks for ` +
        "the same answer every time. Sample train rollouts at temperature 1.",
    );
  }
  return selection;
}

function filterGroup(
  group: FilterGroup,
  index: number,
  options: FilterOptions,
  selection: Selection,
): GroupOutcome {
  const { compares = true } = options;
  const outcome: GroupOutcome = { id: group.id, reason: null, trainedRollouts: 0, dropped: {} };
  if (group.failed && compares) return { ...outcome, reason: group.failed };

  const rewarded = group.members.filter((member) => member.reward !== null);
  const missing = group.members.length - rewarded.length;
  if (missing > 0 && compares) outcome.dropped.no_reward = missing;
  const reason = compares ? whyNotCompared(comparedOf(group)) : null;

  for (const member of compares ? rewarded : group.members) {
    const masks = reason === null ? masksOf(member.completions, masking(member, options)) : null;
    const masked = masks ? maskOf(member, masks, options) : reason;
    const rollout = selection.rollouts.length;
    selection.rollouts.push({
      id: member.rolloutId,
      reward: group.failed ? null : member.reward,
      group: index,
      trainable: masked === null,
    });
    if (masks && masked === null) {
      outcome.trainedRollouts++;
      selection.trainableRollouts++;
      selection.tokens += addCompletions(member, rollout, masks, selection);
      for (const why of masks.values()) {
        if (why !== null) count((outcome.masked ??= {}), why);
      }
    } else if (reason === null && masked !== null) count(outcome.dropped, masked);
  }
  outcome.reason = reason ?? (outcome.trainedRollouts === 0 ? mostFrequentMask(outcome) : null);
  return outcome;
}

function comparedOf({ failed, members }: FilterGroup): Parameters<typeof whyNotCompared>[0] {
  return {
    failed,
    rewards: members.map(({ reward }) => reward),
    differsWithin: members.some(({ reward, training }) =>
      differsWithin(reward, [...(training?.values() ?? [])]),
    ),
  };
}

function masking({ training }: FilterMember, options: FilterOptions): CompletionMasks {
  const excluded = [...(training ?? [])].filter(([, { trainable }]) => trainable === false);
  return { ...options, excluded: new Set(excluded.map(([id]) => id)) };
}

/** Why a rollout with a reward is not trained; null where it is. */
function maskOf(
  member: FilterMember,
  masks: CompletionMaskReasons,
  options: FilterOptions,
): DropReason | null {
  const lengths = sequenceLengths(member.completions);
  const chosen = member.completions.filter(({ id }) => masks.get(id) === null);
  for (const [reason, applies] of rolloutFilters) {
    if (chosen.some((of) => applies(of, lengths.get(of.id) ?? 0, options))) return reason;
  }
  if (chosen.length > 0) return null;
  const why = new Set(masks.values());
  return completionFilters.find(([reason]) => why.has(reason))?.[0] ?? "no_tokens";
}

/**
 * What the policy sampled and the agent took: every completion that reached it, but of several choices only
 * those that it went on with. With each stands why it is left out of the loss all the same; null where it trains.
 */
export function masksOf(
  completions: readonly LedgerCompletion[],
  options: CompletionMasks,
): CompletionMaskReasons {
  const continued = continuedIds(completions);
  return new Map(
    completions
      .filter(
        ({ id, delivered, sampled, choices }) =>
          delivered && sampled.length > 0 && (choices === 1 || continued.has(id)),
      )
      .map((completion) => [completion.id, reasonOf(completionFilters, completion, options)]),
  );
}

/** Whether something beside the policy and its temperature decided what was sampled. */
export function isConstrained({ temperature, topP, constrained }: LedgerCompletion): boolean {
  return temperature === 0 || topP < 1 || constrained;
}

/** Tokens of each completion's whole sequence. */
export function sequenceLengths(
  completions: readonly Pick<LedgerCompletion, "id" | "parentId" | "promptSuffix" | "sampled">[],
): Map<string, number> {
  const lengths = new Map<string, number>();
  for (const { id, parentId, promptSuffix, sampled } of completions) {
    const before = parentId === null ? 0 : (lengths.get(parentId) ?? 0);
    lengths.set(id, before + promptSuffix.length + sampled.length);
  }
  return lengths;
}

/** Adds what trains and all that it continues; returns the tokens that train. */
function addCompletions(
  member: FilterMember,
  rollout: number,
  masks: CompletionMaskReasons,
  selection: Selection,
): number {
  const training = new Set([...masks.keys()].filter((id) => masks.get(id) === null));
  let tokens = 0;
  for (const { id, sampled } of withAncestors(member.completions, training)) {
    const { trainable: _, ...given } = member.training?.get(id) ?? {};
    selection.completions.push({ id, rollout, ...given, trainable: training.has(id) });
    if (training.has(id)) tokens += sampled.length;
  }
  return tokens;
}

/** Those named and all that they continue, parents first as they came. */
export function withAncestors<C extends Pick<LedgerCompletion, "id" | "parentId">>(
  completions: readonly C[],
  named: ReadonlySet<string>,
): C[] {
  const byId = new Map(completions.map((completion) => [completion.id, completion]));
  const needed = new Set<string>();
  for (const id of named) {
    for (let at = byId.get(id); at && !needed.has(at.id); at = byId.get(at.parentId ?? "")) {
      needed.add(at.id);
    }
  }
  return completions.filter(({ id }) => needed.has(id));
}

function mostFrequentMask(outcome: GroupOutcome): DropReason {
  const reasons = [...rolloutFilters, ...completionFilters].map(([reason]) => reason);
  return [...reasons, "no_tokens" as const].reduce((best, reason) =>
    (outcome.dropped[reason] ?? 0) > (outcome.dropped[best] ?? 0) ? reason : best,
  );
}

function everyTemperatureIs0(group: FilterGroup): boolean {
  const completions = group.members.flatMap((member) => member.completions);
  return completions.length > 0 && completions.every(({ temperature }) => temperature === 0);
}

export function stepOf(policy: string): number {
  return parseModelRef(policy)?.step ?? 0;
}

function count(counts: Counts, reason: DropReason): void {
  counts[reason] = (counts[reason] ?? 0) + 1;
}
