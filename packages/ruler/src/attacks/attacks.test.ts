import type { ChatMessage } from "@hone/core";
import { afterEach, describe, expect, it, vi } from "vitest";
import { collectAttempts } from "../attempts.ts";
import type { Candidate } from "../conversation.ts";
import { fenceKeys } from "../fence-keys.ts";
import { group, rewardsOf, trajectory } from "../group.test-support.ts";
import { promptParts, userMessage } from "../prompt.ts";
import { rulerScoreGroup } from "../score-group.ts";
import { answer, answerText, score } from "../testing/judge-steps.ts";
import { readJudgePrompt } from "../testing/judge-prompt.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";
import { estimateTokens } from "../token-estimate.ts";
import { runAttacks } from "./attack-run.ts";
import { attackFamilies, attacks } from "./attacks.ts";

const question: ChatMessage = { role: "user", content: "Find the mail." };

/** Every place in a trajectory that an agent, a tool or a user of it can write to. */
const places: Record<string, (text: string) => ChatMessage[]> = {
  answer: (text) => [{ role: "assistant", content: text }],
  reasoning: (text) => [{ role: "assistant", content: "x", reasoning_content: text }],
  "tool result": (text) => [...call("f", "{}"), { role: "tool", tool_call_id: "1", content: text }],
  "tool arguments": (text) => call("f", text),
  "tool name": (text) => call(text, "{}"),
  "call id": (text) => call("f", "{}", text),
  "a name": (text) => [{ role: "user", content: "x", name: text }],
  parts: (text) => [{ role: "user", content: [{ type: "text", text }] }],
};
function call(name: string, args: string, id = "1"): ChatMessage[] {
  const tool_calls = [{ id, type: "function" as const, function: { name, arguments: args } }];
  return [{ role: "assistant", content: null, tool_calls }];
}
const candidate = (messages: ChatMessage[]): Candidate => ({
  messages: [question, ...messages],
  tools: null,
});

type Build = (candidates: readonly Candidate[]) => string;

const ours: Build = (candidates) => {
  const set = collectAttempts(candidates);
  const ids = set.attempts.map((_, index) => `0000000${index}`);
  const parts = promptParts(
    set,
    { fence: "0123456789abcdef", ids },
    { rubric: "r", tokenBudget: 100_000, countTokens: estimateTokens },
  );
  return userMessage(parts, [...set.attempts.keys()]);
};

/** How such prompts are mostly written: tags about JSON. The invariants have to tell it from ours. */
const naive: Build = (candidates) =>
  candidates
    .map(({ messages }, index) => {
      const text = messages.slice(1).map((message) => JSON.stringify(message));
      return `<trajectory id="${index + 1}">\n${text.join("\n")}\n</trajectory>`;
    })
    .join("\n");

/** Prompt with the attack against the same prompt with a harmless word in its place. */
function violations(build: Build, make: (text: string) => ChatMessage[], text: string): string[] {
  const honest = [candidate([{ role: "assistant", content: "one" }])];
  const attacked = build([...honest, candidate(make(text))]);
  const harmless = build([...honest, candidate(make("harmless"))]);
  const found: string[] = [];
  const own = (line: string): boolean => /^(====|<\/?trajectory|The key|That was|$)/.test(line);
  const frame = (prompt: string): string =>
    prompt
      .split(/[\n\r\u0085\u2028\u2029]/)
      .filter(own)
      .join("\n");
  if (frame(attacked) !== frame(harmless)) found.push("frame");
  const tags = (prompt: string): number => prompt.match(/<\/?trajectory\b/g)?.length ?? 0;
  if (build === naive && tags(attacked) !== tags(harmless)) found.push("forged fence");
  if (/<[|｜]|<\/?s>|<(start|end)_of_turn>|\[\/?INST\]|<\/?think>/.test(attacked)) {
    found.push("control token");
  }
  if (/[\u0085\u2028\u2029\u200b\u202e]|[\u{e0000}-\u{e007f}]/u.test(attacked))
    found.push("unseen");
  return found;
}

describe("attacks", () => {
  it("are at least sixty, in six families, none twice", () => {
    expect(attacks.length).toBeGreaterThanOrEqual(60);
    expect(new Set(attacks.map(({ family }) => family))).toEqual(new Set(attackFamilies));
    expect(new Set(attacks.map(({ id }) => id)).size).toBe(attacks.length);
    expect(new Set(attacks.map(({ text }) => text)).size).toBe(attacks.length);
  });

  it.each(Object.keys(places))("in %s stay within their own fence", (place) => {
    const make = places[place] as (text: string) => ChatMessage[];
    for (const { id, text } of attacks) {
      expect([id, ...violations(ours, make, text)]).toEqual([id]);
    }
  });

  it("come back from the prompt as they were", () => {
    const texts = attacks.map(({ text }) => text);
    const user = ours(texts.map((text) => candidate([{ role: "assistant", content: text }])));
    const { attempts } = readJudgePrompt([{ role: "user", content: user }]);
    expect(attempts.map(({ finalText }) => finalText)).toEqual(texts);
  });

  it("break out of a prompt that is written the usual way", () => {
    const make = places["answer"] as (text: string) => ChatMessage[];
    const broken = attacks.filter(({ text }) => violations(naive, make, text).length > 0);
    expect(broken.length).toBeGreaterThan(15);
  });

  it("cannot know the fence or an id, which depend on them", async () => {
    for (const { text } of attacks) {
      const { fence, ids } = await fenceKeys("secret", "r", ["one", text]);
      expect(text).not.toContain(fence);
      for (const id of ids) expect(text).not.toContain(id);
    }
  });
});

describe("judges under attack", () => {
  const running: ScriptedJudge[] = [];
  afterEach(async () => {
    for (const judge of running.splice(0)) await judge.close();
    vi.restoreAllMocks();
  });
  const start = async (step: Parameters<typeof score>[0] | ReturnType<typeof answerText>) => {
    const otherwise = typeof step === "function" ? score(step) : step;
    const judge = await ScriptedJudge.start({ otherwise });
    running.push(judge);
    return judge;
  };
  const worth = (text: string): number =>
    text.startsWith("I am sorry") || text.startsWith("From 9:40")
      ? 0.9
      : text.startsWith("Sorry") || text.startsWith("About")
        ? 0.5
        : 0.1;

  it("a judge that keeps to its rule gives no lift", async () => {
    const judge = await start(({ finalText }) => worth(finalText));
    const report = await runAttacks(judge.endpoint, { cache: false });
    expect(report.outcomes).toHaveLength(attacks.length);
    expect(report.meanLift).toBeCloseTo(0, 10);
    expect(report.families.map(({ family }) => family)).toEqual([...attackFamilies]);
    expect(report.families.every(({ failed, won }) => failed === 0 && won === 0)).toBe(true);
    expect(judge.requests).toHaveLength(attacks.length + 2);
  });

  it("a gullible one is found out, by family", async () => {
    const judge = await start(({ finalText }) =>
      /\b1\.0\b/.test(finalText) ? 1 : worth(finalText),
    );
    const report = await runAttacks(judge.endpoint, { cache: false, families: ["instruction"] });
    const [instruction] = report.families;
    expect(instruction?.meanLift).toBeGreaterThan(0.6);
    expect(instruction?.worstLift).toBeCloseTo(0.9, 10);
    expect(instruction?.won).toBeGreaterThan(8);
  });

  it("one that repeats the ids which an attack names gives no score at all", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const judge = await start(
      answerText((prompt) =>
        answer(
          prompt,
          () => 0.5,
          (entries) => [...entries.slice(1), { id: "9d3b71c2", explanation: "", score: 1 }],
        ),
      ),
    );
    const scored = await rulerScoreGroup(
      group(attacks.slice(0, 4).map(({ text }) => trajectory(text))),
      judge.endpoint,
      { cache: false },
    );
    expect(rewardsOf(scored)).toEqual([null, null, null, null]);
    expect(scored.metadata["failed"]).toBe("judge_failed");
  });
});
