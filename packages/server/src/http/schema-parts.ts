import { setImmediate } from "node:timers/promises";
import type { z } from "zod";

/** How many elements of a list are checked at once. Of lists within lists, that many of each. */
const part = 32;
/** @unit ms */
const turnMs = 10;

type Issue = z.core.$ZodIssue;

/**
 * The faults in the first part of a value's long lists that has any. A schema collects what is wrong with every
 * element, which for a hundred thousand of them keeps everybody waiting; here each list is looked at a part at a
 * time, and others have their turn in between. A value without long lists, or without faults in them, has none: the
 * schema itself has the last word.
 */
export async function faultsOfParts(schema: z.ZodType, value: unknown): Promise<Issue[]> {
  const longest = longestList(value, 0);
  if (longest <= part) return [];
  let began = performance.now();
  for (let from = 0; from < longest; from += part) {
    const result = schema.safeParse(partOf(value, from, 0));
    if (!result.success) {
      return result.error.issues.slice(0, 16).map((issue) => placed(issue, value, from));
    }
    if (performance.now() - began > turnMs) {
      await setImmediate();
      began = performance.now();
    }
  }
  return [];
}

/** Lists nested in lists nested in lists are as deep as any body of ours has them. */
const deepest = 8;

function longestList(value: unknown, depth: number): number {
  if (typeof value !== "object" || value === null || depth > deepest) return 0;
  const inner = Object.values(value).reduce<number>(
    (longest, item) => Math.max(longest, longestList(item, depth + 1)),
    0,
  );
  return Array.isArray(value) ? Math.max(value.length, inner) : inner;
}

/** Each long list with one part of it only: the one from there on, or its last. */
function partOf(value: unknown, from: number, depth: number): unknown {
  if (typeof value !== "object" || value === null || depth > deepest) return value;
  if (Array.isArray(value)) {
    const start = startOf(value, from);
    return value.slice(start, start + part).map((item) => partOf(item, from, depth + 1));
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, partOf(item, from, depth + 1)]),
  );
}

function startOf(list: readonly unknown[], from: number): number {
  return from < list.length ? from : Math.max(0, list.length - part);
}

/** The issue with its path in the whole value. */
function placed(issue: Issue, value: unknown, from: number): Issue {
  let at = value;
  const path = issue.path.map((step) => {
    const place = Array.isArray(at) && typeof step === "number" ? step + startOf(at, from) : step;
    at = (at as Record<PropertyKey, unknown> | null)?.[place];
    return place;
  });
  return { ...issue, path };
}
