import type { Scorer } from "@hone/ruler/testing";
import { same } from "./same.ts";
import { firstSentence } from "./scenarios.ts";

/** What a judge of MCP agents is asked to look at. */
export const mcpRubric = `- What counts is what the attempt did: each part of the task that a call without an error has done, with the values that the task gives. More parts done score clearly above fewer.
- A claim that something is done, without a call that did it, counts nothing.
- Calls that fail, that repeat what is done, or that have nothing to do with the task lower the score a little.
- Of attempts that did the same, one that ends with complete_task scores above one that runs out of turns.`;

// What a judge with this rubric would look at, as a program: for tests and offline runs. It sees what a judge sees, the
// task, the tools and the attempt, and reads only tasks in the words of `makeScenarios`.

type Shown = Record<string, unknown>;
interface Made {
  name: string;
  args: unknown;
  result: string;
}

/** Scores by the share of the task's lines that a call without an error did, less a little for calls that did nothing. */
export const followTheRubric: Scorer = ({ records }, { task, tools }) => {
  const conversation = [...task, ...records];
  const asked = textOf(conversation.find(({ role }) => role === "user")?.["content"]);
  const lines = asked.split("\n").flatMap((line) => /^\d+\. (.*)$/.exec(line)?.[1] ?? []);
  const made = callsOf(conversation);
  const left = made.filter(({ name, result }) => name !== "complete_task" && !isError(result));
  let done = 0;
  for (const line of lines) {
    const at = left.findIndex((call) => asksFor(line, call, tools));
    if (at < 0) continue;
    left.splice(at, 1);
    done += 1;
  }
  const idle = made.filter(({ name }) => name !== "complete_task").length - done;
  const ended = made.some(({ name }) => name === "complete_task");
  const share = lines.length === 0 ? 0 : done / lines.length;
  const score = Math.max(0, 0.9 * share + (ended ? 0.1 * share : 0) - Math.min(0.2, 0.03 * idle));
  return {
    score: Math.round(score * 100) / 100,
    explanation: `${done} of ${lines.length} parts are done, ${idle} calls did none, and it ${ended ? "ends" : "does not end"} by itself.`,
  };
};

function asksFor(line: string, { name, args }: Made, tools: readonly Shown[]): boolean {
  const tool = tools.find((one) => one["name"] === name);
  const does = firstSentence(textOf(tool?.["description"]) || name);
  if (line === does) return same(args, {});
  if (!line.startsWith(`${does}: `)) return false;
  try {
    return same(args, JSON.parse(line.slice(does.length + 2)));
  } catch {
    return false;
  }
}

function callsOf(conversation: readonly Shown[]): Made[] {
  const results = new Map(
    conversation
      .filter(({ role }) => role === "tool")
      .map((one) => [one["tool_call_id"], textOf(one["content"])] as const),
  );
  return conversation.flatMap((record) =>
    ((record["tool_calls"] ?? []) as { id: string; name: string; arguments: string }[]).map(
      (call) => {
        let args: unknown = null;
        try {
          args = JSON.parse(call.arguments);
        } catch {
          // No line asks for it.
        }
        return { name: call.name, args, result: results.get(call.id) ?? '{"error":"cut"}' };
      },
    ),
  );
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** As `errorText` writes them. */
function isError(result: string): boolean {
  return result.startsWith('{"error":');
}
