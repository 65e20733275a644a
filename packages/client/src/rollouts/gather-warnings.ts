import type { RolloutMode, Trajectory, TrajectoryGroup } from "@hone/core";
import type { CallCounter } from "./rollout-context.ts";

interface Gathering {
  mode: RolloutMode;
  groupSize: number;
  /** The calls of the rollouts that ended without a completion. */
  idle: readonly CallCounter[];
}

/** Warnings in words, before the step, of what the step itself only counts: `no_tokens`, `constrained` and so on. */
export function gatherWarnings(
  groups: readonly TrajectoryGroup[],
  { mode, groupSize, idle }: Gathering,
): string[] {
  const trajectories = groups.flatMap((group) => group.trajectories);
  const warnings: string[] = [];
  const outcome =
    mode === "train" ? "They train nothing (`no_tokens`)" : "Their scores are not the model's";
  if (idle.length > 0) {
    warnings.push(
      `gather(): ${idle.length} of ${trajectories.length} rollouts ended without a completion of the model. ${outcome}. ${whyIdle(idle)}`,
    );
  }
  if (mode === "eval") return warnings;
  const constrained = trajectories.filter(
    ({ usage }) => usage.completions > 0 && usage.constrained === usage.completions,
  );
  if (constrained.length > 0) {
    warnings.push(
      `gather(): ${constrained.length} of ${trajectories.length} rollouts were sampled by other rules than the model's own: ` +
        `${whyConstrained(constrained)}, or pass allowConstrained to train().`,
    );
  }
  const small = groups.filter((group) => group.trajectories.length < 2);
  if (small.length > 0) {
    const why =
      groupSize === 1
        ? "groupSize is 1, and a group of one compares nothing: give 8 or more, or leave it out."
        : "The others failed: their group's `exceptions` say why.";
    warnings.push(
      `gather(): ${small.length} of ${groups.length} groups have fewer than two trajectories and train nothing (\`group_too_small\`). ${why}`,
    );
  }
  return warnings;
}

type Cause = NonNullable<Trajectory["usage"]["constrainedBy"]>[number];

const causes: Record<Cause, [what: string, instead: string]> = {
  temperature: ["at temperature 0 (some frameworks set it unasked)", "temperature 1"],
  top_p: ["with top_p below 1", "top_p 1"],
  response_format: ["with a response_format", "no response_format"],
  tool_choice: [
    "with a tool_choice that requires a call, or tools beside a response_format",
    'tool_choice "auto"',
  ],
};

/** Of all causes where an older server does not say which. */
function whyConstrained(trajectories: readonly Trajectory[]): string {
  const known = new Set(trajectories.flatMap(({ usage }) => usage.constrainedBy ?? []));
  const named = (Object.keys(causes) as Cause[]).filter(
    (one) => known.size === 0 || known.has(one),
  );
  const what = named.map((one) => causes[one][0]).join(", ");
  const instead = named.map((one) => causes[one][1]).join(", ");
  return `${what}. They train nothing (\`constrained\`). Ask for ${instead}`;
}

function whyIdle(idle: readonly CallCounter[]): string {
  if (idle.some(({ current }) => current !== null)) {
    return "A call was still under way when its rollout returned: await it.";
  }
  const refusal = idle.find((calls) => calls.started > 0 && calls.refusal !== null)?.refusal;
  if (refusal) {
    return `Their calls were answered with errors (the last one: ${refusal}), which the agent did not pass on: let it throw them.`;
  }
  if (idle.some(({ started }) => started > 0))
    return "Their calls were cut off or not read to their end.";
  return (
    "They made no call that the server or the recorder saw. Does the agent's client have the rollout's own base URL, " +
    "`new OpenAI(model.connection())`, or `fetch: model.fetch`, and is every call awaited?"
  );
}
