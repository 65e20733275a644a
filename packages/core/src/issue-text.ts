import type { z } from "zod";

type Issue = z.core.$ZodIssue;

/** The first fault of a value in plain words, `groups[2].id is missing`; `root` is what the value itself is called. */
export function issueText(error: { issues: readonly Issue[] }, root: string): string {
  const { path, words } = faultOf(error.issues);
  return `${pathText(path) || root} ${words}`;
}

/** Its place: `messages[2].content`; undefined for the root. */
export function issuePath(error: { issues: readonly Issue[] }): string | undefined {
  return pathText(faultOf(error.issues).path) || undefined;
}

interface Fault {
  path: PropertyKey[];
  words: string;
}

/** The one to tell of: an unknown key is the clearer complaint where a value has several faults. */
export function clearestIssue(issues: readonly Issue[]): Issue | undefined {
  return issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
}

/** The first fault of each branch of a union; the branch that went furthest, which was meant, comes first. */
export function branchFaults(union: { errors: readonly (readonly Issue[])[] }): Issue[] {
  return union.errors
    .flatMap((branch) => branch.slice(0, 1))
    .sort((a, b) => b.path.length - a.path.length);
}

function faultOf(issues: readonly Issue[]): Fault {
  const issue = clearestIssue(issues);
  if (!issue) return { path: [], words: "is not valid" };
  if (issue.code === "invalid_union") {
    const [deepest] = branchFaults(issue);
    if (deepest && deepest.path.length > 0) {
      const { path, words } = faultOf([deepest]);
      return { path: [...issue.path, ...path], words };
    }
  }
  return { path: issue.path, words: wordsOf(issue) };
}

function wordsOf(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return isOwn(issue.message) ? typeWords(issue.message) : issue.message;
    case "too_small":
      return bound(issue, issue.minimum, issue.inclusive === false ? "more than" : "at least");
    case "too_big":
      return bound(issue, issue.maximum, issue.inclusive === false ? "less than" : "at most");
    case "invalid_value":
      return `must be ${issue.values.length > 1 ? "one of " : ""}${issue.values.map((value) => JSON.stringify(value)).join(", ")}`;
    case "unrecognized_keys":
      return `has the unknown key ${JSON.stringify(issue.keys[0] ?? "")}`;
    case "invalid_union": {
      const kinds = issue.errors.flatMap((branch) => branch.slice(0, 1).flatMap(kindsOf));
      return kinds.length > 0
        ? `must be ${[...new Set(kinds)].join(" or ")}`
        : isOwn(issue.message)
          ? "is of no known kind"
          : `is wrong: ${issue.message}`;
    }
    default:
      return isOwn(issue.message) ? "is not valid" : `is wrong: ${issue.message}`;
  }
}

/** A wrong type or size in plain words, `must be at least 1`; null where the schema has words of its own, or for others. */
export function issueWords(issue: Issue): string | null {
  const { code, message } = issue;
  const isPlain = code === "invalid_type" || code === "too_small" || code === "too_big";
  return isPlain && isOwn(message) ? wordsOf(issue) : null;
}

/** What one branch of a union would have taken. */
function kindsOf(issue: Issue): string[] {
  if (issue.code === "invalid_value") return issue.values.map((value) => JSON.stringify(value));
  return "expected" in issue ? [article(String(issue.expected))] : [];
}

/** zod's own words, not those of a schema of ours. */
function isOwn(message: string): boolean {
  return /^(Invalid|Too (small|big)|Unrecognized)\b/.test(message);
}

function typeWords(message: string): string {
  const [, expected = "", received = ""] = /expected (.+?), received (.+)$/.exec(message) ?? [];
  if (!expected) return "is of the wrong kind";
  if (received === "undefined") return `is missing: it must be ${article(expected)}`;
  return `must be ${article(expected)}, not ${received === "number" ? "a number" : article(received)}`;
}

const names: Record<string, string> = {
  string: "a text",
  number: "a finite number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
  null: "null",
  undefined: "undefined",
  NaN: "NaN",
  Infinity: "Infinity",
};

function article(kind: string): string {
  return names[kind] ?? (/^[aeiou]/i.test(kind) ? `an ${kind}` : `a ${kind}`);
}

function bound(issue: { origin: string; message: string }, limit: unknown, how: string): string {
  if (!isOwn(issue.message)) return issue.message;
  if (issue.origin === "string") return `must have ${how} ${String(limit)} characters`;
  if (issue.origin === "array" || issue.origin === "set") {
    return `must have ${how} ${String(limit)} entries`;
  }
  return `must be ${how} ${String(limit)}`;
}

/** `messages[2].content`; empty for the root. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += text ? `.${String(part)}` : String(part);
  }
  return text.slice(0, 200);
}
