// `pnpm bench judge` — what RULER asks of a judge: calls, and tokens of the prompt, against one call
// a group whose prompt holds every episode and its tools whole. A real request to a scripted judge is counted,
// with the tokenizer of OpenAI's newer models (o200k).
import { parseArgs } from "node:util";
import {
  mulberry32,
  type ChatMessage,
  type ChatTool,
  type Trajectory,
  type TrajectoryGroup,
} from "@hone/core";
import { rulerScoreGroup } from "@hone/ruler";
import { score, ScriptedJudge } from "@hone/ruler/testing";
import { Tiktoken } from "js-tiktoken/lite";
import o200k from "js-tiktoken/ranks/o200k_base";

parseArgs({ options: {} }); // it has none
const turns = 50;
const members = 8;
const tokenizer = new Tiktoken(o200k);
const count = (text: string): number => tokenizer.encode(text, "all", []).length;

const words =
  "the invoice from our supplier came on Monday and Anna asked whether the meeting about budget plans could move to next week because travel notes were late".split(
    " ",
  );
const tools = ["search", "read", "reply", "archive", "forward", "answer"].map((name): ChatTool => ({
  type: "function",
  function: {
    name,
    description: `The mailbox's ${name}: takes a query or an id, and says what it found or did.`,
    parameters: {
      type: "object",
      properties: {
        query: { type: "string", description: "words to look for" },
        id: { type: "string", description: "a mail's id" },
        limit: { type: "integer", description: "the most results" },
      },
      required: ["query"],
    },
  },
}));

/** An episode of an agent that looks through a mailbox. Members have the first turns in common. */
function episode(member: number, shared: number): ChatMessage[] {
  const messages: ChatMessage[] = [
    {
      role: "system",
      content: "You answer questions about a mailbox with the tools that you have.",
    },
    { role: "user", content: "When is the budget meeting, and who moved it?" },
  ];
  for (let turn = 0; turn < turns; turn += 1) {
    const random = mulberry32(1000 * (turn < shared ? 0 : member + 1) + turn);
    const text = (length: number) =>
      Array.from({ length }, () => words[Math.floor(random() * words.length)]).join(" ");
    const id = `call_${turn}_${Math.floor(random() * 1e6)}`;
    const query = JSON.stringify({ query: text(4), limit: 5 });
    messages.push(
      {
        role: "assistant",
        content: text(12),
        tool_calls: [{ id, type: "function", function: { name: "search", arguments: query } }],
      },
      { role: "tool", tool_call_id: id, content: text(60) },
    );
  }
  messages.push({ role: "assistant", content: `Attempt ${member}: the meeting is on Tuesday.` });
  return messages;
}

function groupOf(episodes: ChatMessage[][]): TrajectoryGroup {
  const trajectories = episodes.map((messages): Trajectory => ({
    ...{ rolloutId: null, model: null, policy: null, messages, tools, histories: [] },
    ...{ reward: null, metrics: {}, metadata: {}, logs: [], startedAt: 0, durationMs: 0 },
    usage: { completions: turns, promptTokens: 0, completionTokens: 0 },
  }));
  const empty = { exceptions: [], metadata: {}, metrics: {}, logs: [] };
  return { id: "grp_bench", scenario: {}, trajectories, ...empty };
}

const whole = (group: TrajectoryGroup): number =>
  count(
    group.trajectories
      .map(
        ({ messages }, i) => `<attempt id="${i}">${JSON.stringify({ messages, tools })}</attempt>`,
      )
      .join("\n"),
  );

const judge = await ScriptedJudge.start({ otherwise: score(() => 0.5) });
const rows: Record<string, unknown>[] = [];
try {
  const kinds = [
    ...[0, 10, 25, 45].map((shared) => ({
      group: `${shared} of ${turns} turns shared`,
      episodes: Array.from({ length: members }, (_, member) => episode(member, shared)),
    })),
    {
      group: "three different, five repeat them",
      episodes: Array.from({ length: members }, (_, member) => episode(member % 3, 0)),
    },
    { group: "all the same", episodes: Array.from({ length: members }, () => episode(0, 0)) },
  ];
  for (const { group: name, episodes } of kinds) {
    const group = groupOf(episodes);
    const before = judge.requests.length;
    await rulerScoreGroup(group, judge.endpoint, { cache: false });
    const asked = judge.requests.slice(before);
    const tokens = asked
      .flatMap(({ body }) => body.messages)
      .reduce((sum, { content }) => sum + (typeof content === "string" ? count(content) : 0), 0);
    const naive = whole(group);
    rows.push({
      "group of 8": name,
      calls: asked.length,
      "prompt tokens": tokens,
      "whole episodes": naive,
      share: `${((100 * tokens) / naive).toFixed(0)}%`,
    });
  }
  console.table(rows);
} finally {
  await judge.close();
}
