import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { expect, it } from "vitest";
import filesystemTask from "./filesystem-task.ts";
import { episodeMetrics, mcpTask, scoreByRuler } from "./mcp-task.ts";
import memoryTask from "./memory-task.ts";
import { memory } from "./servers.ts";

type Made = [name: string, args: object, result?: string];

const tasks = ['1. Open it: {"a":1,"b":[2]}\n2. Read all', "1. Read all"];
const tools = ["open:Open it. Now.", "read:Read all", "complete_task:Ends the task."].map((one) => {
  const [name = "", description] = one.split(":");
  return { type: "function" as const, function: { name, description, parameters: {} } };
});

function groupOf(attempts: readonly Made[][], judge = ""): TrajectoryGroup {
  const trajectories = attempts.map((calls, n): Trajectory => ({
    ...{ rolloutId: `ro_${n}`, model: null, policy: null, histories: [], reward: null, tools },
    messages: [
      { role: "user", content: tasks[0]! },
      ...calls.flatMap(([name, args, content = "ok"], at) => {
        const call = { name, arguments: JSON.stringify(args) };
        const id = `call_${at}`;
        return [
          {
            ...{ role: "assistant" as const, content: null },
            tool_calls: [{ id, type: "function" as const, function: call }],
          },
          { role: "tool" as const, tool_call_id: id, content },
        ];
      }),
    ],
    ...{ metrics: {}, metadata: { judge }, logs: [], startedAt: 0, durationMs: 0 },
    usage: { completions: 1, promptTokens: 0, completionTokens: 0 },
  }));
  return {
    ...{ id: "g", scenario: {}, exceptions: [], metadata: {}, metrics: {}, logs: [] },
    trajectories,
  };
}

it("lets RULER order attempts by what they did, as the rubric says", async () => {
  const open: Made = ["open", { b: [2], a: 1 }];
  const read: Made = ["read", {}];
  const complete: Made = ["complete_task", { summary: "All is done, perfectly." }];
  const [scored] = await scoreByRuler(
    [
      groupOf([
        [open, read, complete],
        [open, read],
        [open, read, read, complete],
        [["open", { a: 1 }], read, complete],
        [["open", { a: 1, b: [2] }, '{"error":"No."}'], complete],
        [complete],
      ]),
    ],
    new AbortController().signal,
  );
  const rewards = scored?.trajectories.map(({ reward }) => reward);
  expect(rewards).toEqual([1, 0.9, 0.97, 0.47, 0, 0]);
  expect(scored?.trajectories[3]?.logs.at(-1)).toContain("1 of 2 parts are done");
});

it("counts as done what calls without an error did, each once", () => {
  const made = (tool: string, args: Record<string, unknown>, failed = false) => ({
    ...{ tool, arguments: args, failed },
  });
  const episode = { summary: "Done.", turns: 3, tokens: 9 };
  const want = { tool: "open", arguments: { a: 1 } };
  const scenario = { tools: ["open"], calls: [want, want] };
  const done = (...calls: ReturnType<typeof made>[]) =>
    episodeMetrics(scenario, { ...episode, calls })["done"];
  expect(done(made("open", { a: 1 }))).toBe(0.5);
  expect(done(made("open", { a: 1 }), made("open", { a: 1 }))).toBe(1);
  expect(done(made("open", { a: 2 }), made("open", { a: 1 }, true))).toBe(0);
  const written = { tools: ["open", "read"] };
  const metrics = episodeMetrics(written, { ...episode, calls: [made("read", { x: 1 })] });
  expect(metrics).toEqual({
    ...{ done: 0.5, calls: 1, failedCalls: 0, completed: 1, turns: 3, tokens: 9 },
  });
});

it("has enough scenarios for a verdict, and refuses settings that cannot be", () => {
  for (const task of [filesystemTask, memoryTask]) expect(task.heldOut).toHaveLength(16);
  const check = (given: object) => () =>
    memoryTask.checkSettings?.({ turns: 6, judge: "", mustCall: false, sft: 0, ...given });
  expect(check({})).not.toThrow();
  expect(check({ turns: 0 })).toThrow("--turns");
  expect(check({ sft: 48 })).not.toThrow();
  expect(check({ sft: 49 })).toThrow("--sft is a number of transcripts from 0 to 48");
  const written = Array.from({ length: 8 }, (_, n) => ({
    ...{ task: `${n}`, difficulty: 1, tools: ["read_graph"] },
  }));
  const { checkSettings } = mcpTask(memory, written);
  expect(() => checkSettings?.({ turns: 6, judge: "", mustCall: false, sft: 0 })).toThrow(
    "--judge",
  );
  expect(() =>
    checkSettings?.({ turns: 6, judge: "openai/o4-mini", mustCall: false, sft: 0 }),
  ).not.toThrow();
});
