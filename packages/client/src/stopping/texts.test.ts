import { expect, it } from "vitest";
import { isDegenerate, lastAnswer, sameAnswerKey } from "./texts.ts";

const says = (content: string | null, tool_calls?: object[]) => ({
  messages: [
    { role: "user" as const, content: "?" },
    { role: "assistant" as const, content, ...(tool_calls && { tool_calls: tool_calls as never }) },
  ],
});
const call = { id: "1", type: "function", function: { name: "look", arguments: "{}" } };

it.each([
  "Very well: the order is K-1002, and the invoice is paid.",
  "no no no",
  "0 0 0 0 2 2 4 4 0 0 0 0 8 8 8 8",
  "The cat sat on the mat. The dog sat on the rug. The bird sat on the branch of the tree.",
  "红色的苹果在桌子上",
])("is text: %s", (text) => {
  expect(isDegenerate(says(text))).toBe(false);
});

it.each([
  "great great great great",
  "I think so. ".repeat(8),
  "哈哈".repeat(40),
  "\uFFFD\uFFFD\uFFFD\uFFFDa",
  "  ",
])("is degenerate: %j", (text) => {
  expect(isDegenerate(says(text))).toBe(true);
});

it("a player says the same move in many turns, and one turn of nonsense is degenerate", () => {
  const turns = (moves: string[]) => ({
    messages: moves.flatMap((move) => [
      { role: "user" as const, content: "Your move?" },
      { role: "assistant" as const, content: move },
    ]),
  });
  const moves = Array.from({ length: 30 }, (_, at) => (at % 7 === 0 ? "left" : "down"));
  expect(isDegenerate(turns(moves))).toBe(false);
  expect(isDegenerate(turns([...moves, "down down down down down"]))).toBe(true);
});

it("a rollout that calls a tool may say nothing", () => {
  expect(isDegenerate(says(null, [call]))).toBe(false);
  expect(lastAnswer(says(null, [call]))).toBe("look({})");
  expect(lastAnswer({ messages: [] })).toBeNull();
  const parts = ["pi", "nk"].map((text) => ({ type: "text" as const, text }));
  expect(lastAnswer({ messages: [{ role: "assistant", content: parts }] })).toBe("pink");
  expect(isDegenerate({ messages: [] })).toBe(true);
});

it("answers are alike whatever their case, spaces and last mark", () => {
  expect(sameAnswerKey(" Pink.\n")).toBe(sameAnswerKey("pink"));
  expect(sameAnswerKey("pink")).not.toBe(sameAnswerKey("red"));
});
