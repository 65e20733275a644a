import {
  clientIdSchema,
  HoneError,
  refuseUnknownOptions,
  requireNumber,
  requireObject,
  wrongKind,
} from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";

// TypeScript holds most callers to these; a forgotten `await`, plain JavaScript and `any` get past it.

/** Refuses what is no list of groups. What stands in a trajectory is checked where it is used. */
export function requireGroups(
  where: string,
  groups: unknown,
  param = "groups",
): asserts groups is readonly TrajectoryGroup[] {
  const wanted = "a list of groups, as gather() returns them";
  if (!Array.isArray(groups)) throw wrongKind(where, wanted, groups, param);
  groups.forEach((group: unknown, index) => {
    const place = `${param}[${index}]`;
    requireObject(where, group, `groups, as gather() returns them, as ${place}`, place);
    const { trajectories } = group as { trajectories?: unknown };
    if (Array.isArray(trajectories)) {
      trajectories.forEach((one: unknown, at) => {
        const path = `${place}.trajectories[${at}]`;
        requireObject(where, one, `trajectories as ${path}`, path);
      });
      return;
    }
    throw new HoneError(
      `${where}: ${place} has no list of trajectories. Give groups, as gather() returns them.`,
      { code: "invalid_request", param: place },
    );
  });
}

export function requireList(where: string, list: unknown, param: string): void {
  if (!Array.isArray(list)) throw wrongKind(where, `a list of ${param}`, list, param);
}

export function requireFunction(where: string, value: unknown, param: string): void {
  if (typeof value === "function") return;
  throw wrongKind(where, `a function as ${param}`, value, param);
}

export function requireText(where: string, value: unknown, param: string): void {
  if (typeof value === "string" && value) return;
  throw wrongKind(where, `a text as ${param}`, value, param);
}

/** Refuses a `signal` that is no AbortSignal. Every function that takes `{signal}` calls this. */
export function requireSignal(where: string, options: unknown): void {
  if (options === undefined) return;
  requireObject(where, options, "an object with signal", "options");
  const { signal } = options as { signal?: unknown };
  if (signal === undefined || signal instanceof AbortSignal) return;
  const advice = signal instanceof AbortController ? " (give its .signal)" : "";
  throw wrongKind(where, `an AbortSignal as signal${advice}`, signal, "signal");
}

export function optionalFunction(where: string, value: unknown, param: string): void {
  if (value !== undefined) requireFunction(where, value, param);
}

export function optionalBoolean(where: string, value: unknown, param: string): void {
  if (value === undefined || typeof value === "boolean") return;
  throw wrongKind(where, `true or false as ${param}`, value, param);
}

/** Of functions that take a `signal` and nothing else. */
export function requireOnlySignal(where: string, options: unknown): void {
  requireSignal(where, options);
  refuseUnknownOptions(where, options ?? {}, ["signal"]);
}

export function requireSome(where: string, list: readonly unknown[], param: string): void {
  if (list.length > 0) return;
  throw new HoneError(`${where} needs at least one of its ${param}.`, {
    code: "invalid_request",
    param,
  });
}

/** What every operation is submitted with. JSON would make null of a number that is none. */
export function requireSubmission(
  where: string,
  { expectedStep, clientToken }: { expectedStep?: unknown; clientToken?: unknown },
): void {
  if (expectedStep !== undefined) {
    requireNumber("expectedStep", expectedStep, { whole: true, least: 0 });
  }
  if (clientToken === undefined || clientIdSchema.safeParse(clientToken).success) return;
  const wanted = "a text of 1 to 128 of A-Z a-z 0-9 . _ : - as clientToken";
  throw wrongKind(where, wanted, clientToken, "clientToken");
}
