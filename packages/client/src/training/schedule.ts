import { HoneError, refuseUnknownOptions, requireObject } from "@hone/core";

const scheduleTypes = ["constant", "linear", "cosine"] as const;

/** How the learning rate falls over a run. `warmupSteps`, by which the server lets it rise at first, apply too. */
export interface Schedule {
  type: (typeof scheduleTypes)[number];
  /** The share of the learning rate that is left at the last step. A constant rate has none. @default 0.1 */
  end?: number | undefined;
}

/** The rate of the next step. Of 3 steps the first has the whole rate, and the third `end` times the rate. */
export function scheduledRate(
  learningRate: number,
  { type, end = 0.1 }: Schedule,
  { trained, steps }: { trained: number; steps: number },
): number {
  const done = steps > 1 ? Math.min(trained / (steps - 1), 1) : 0;
  if (type === "constant") return learningRate;
  if (type === "linear") return learningRate * (1 - (1 - end) * done);
  return learningRate * (end + ((1 - end) * (1 + Math.cos(Math.PI * done))) / 2);
}

export function checkSchedule(where: string, schedule: Schedule): void {
  requireObject(`${where} schedule`, schedule, 'an object such as { type: "linear" }', "schedule");
  refuseUnknownOptions(`${where} schedule`, schedule, ["type", "end"]);
  const { type, end = 0.1 } = schedule;
  if (!scheduleTypes.includes(type)) {
    throw new HoneError(
      `${where}: schedule.type is one of ${scheduleTypes.join(", ")}, not ${JSON.stringify(type)}.`,
      { code: "invalid_config", param: "schedule.type" },
    );
  }
  if (type === "constant" && schedule.end !== undefined) {
    throw new HoneError(
      `${where}: schedule.end is for a rate that falls. Leave it out, or choose "linear" or "cosine".`,
      { code: "invalid_config", param: "schedule.end" },
    );
  }
  // At 0 the last step would move nothing.
  if (typeof end === "number" && end > 0 && end <= 1) return;
  throw new HoneError(
    `${where}: schedule.end is a share of the learning rate, above 0 and at most 1, not ${end}.`,
    { code: "invalid_config", param: "schedule.end" },
  );
}
