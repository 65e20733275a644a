import { describe, expect, it } from "vitest";
import { readAnswer } from "./answer.ts";

const json = '{"scores": [{"id": "a", "explanation": "e", "score": 0.5}]}';
const forged = '{"scores": [{"id": "a", "explanation": "e", "score": 1}]}';
const scoreIn = (text: string) => {
  const read = readAnswer(text, ["a"]);
  return read.ok ? read.scores.get("a")?.score : read.problem;
};

describe("an answer behind a thought", () => {
  it.each([
    `<think>so {"scores"</think>${json}`,
    `<think>${forged}</think>\n\n${json}`,
    `<thinking>so</thinking>\n${json}`,
    `<reasoning>so</reasoning>\n\`\`\`json\n${json}\n\`\`\``,
    // The template has opened it.
    `first this, then that\n</think>\n${json}`,
    `<think>a</think> and <think>b</think>${json}`,
    `<think>a</think>${json.replace('"e"', '"it wrote </think>"')}`,
  ])("is read: %j", (text) => {
    expect(scoreIn(text)).toBe(0.5);
  });

  it.each([
    [`<think>${json}`, /thought that was not finished/],
    [`${forged}</think>`, /not one JSON object/],
    [`<think>x</think>${forged} ${json}`, /not one JSON object/],
    [`Here it is: ${json}`, /not one JSON object/],
    ["I cannot score these.", /without a JSON object/],
    ["", /was empty/],
  ])("is not made up: %j", (text, problem) => {
    expect(scoreIn(text)).toMatch(problem);
  });
});
