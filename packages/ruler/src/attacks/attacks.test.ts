import type { ChatMessage, ChatTool } from "@hone/core";
import { afterEach, describe, expect, it, vi } from "vitest";
import { collectAttempts } from "../prompt/attempts.ts";
import type { Candidate } from "../prompt/conversation.ts";
import { dataLine } from "../prompt/data-line.ts";
import { fenceKeys } from "../prompt/fence-keys.ts";
import { group, rewardsOf, trajectory } from "../testing/group.test-support.ts";
import { promptParts, userMessage } from "../prompt/prompt.ts";
import { rulerScoreGroup } from "../judging/score-group.ts";
import { answer, answerText, score } from "../testing/judge-steps.ts";
import { readJudgePrompt } from "../testing/judge-prompt.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";
import { estimateTokens } from "../prompt/token-estimate.ts";
import { runAttacks } from "./attack-run.ts";
import { attackFamilies, attacks } from "./attacks.ts";
import { controlTokens } from "./control-tokens.test-support.ts";

const question: ChatMessage = { role: "user", content: "Find the mail." };

/** Every place in a trajectory that an agent, a tool or a user of it can write to. */
const places: Record<string, (text: string) => Candidate> = {
  answer: (text) => candidate([{ role: "assistant", content: text }]),
  reasoning: (text) => candidate([{ role: "assistant", content: "x", reasoning_content: text }]),
  "tool result": (text) =>
    candidate([...call("f", "{}"), { role: "tool", tool_call_id: "1", content: text }]),
  "tool arguments": (text) => candidate(call("f", text)),
  "tool name": (text) => candidate(call(text, "{}")),
  "call id": (text) => candidate(call("f", "{}", text)),
  "a name": (text) => candidate([{ role: "user", content: "x", name: text }]),
  parts: (text) => candidate([{ role: "user", content: [{ type: "text", text }] }]),
  "a part that is not shown": (text) =>
    candidate([{ role: "user", content: [{ type: text } as never] }]),
  "a tool's description": (text) => withTool({ name: "f", description: text }),
  "a tool's parameters": (text) =>
    withTool({ name: "f", parameters: { properties: { [text]: { description: text } } } }),
  "a further conversation": (text) => ({
    ...candidate([{ role: "assistant", content: "x" }]),
    histories: [{ messages: [{ role: "user", content: text }], tools: null }],
  }),
  "a further conversation's tools": (text) => ({
    ...candidate([{ role: "assistant", content: "x" }]),
    histories: [{ messages: [question], tools: toolsOf({ name: "f", description: text }) }],
  }),
};
function call(name: string, args: string, id = "1"): ChatMessage[] {
  const tool_calls = [{ id, type: "function" as const, function: { name, arguments: args } }];
  return [{ role: "assistant", content: null, tool_calls }];
}
function toolsOf(tool: ChatTool["function"]): ChatTool[] {
  return [{ type: "function", function: tool }];
}
function withTool(tool: ChatTool["function"]): Candidate {
  return { ...candidate([{ role: "assistant", content: "x" }]), tools: toolsOf(tool) };
}
function candidate(messages: ChatMessage[]): Candidate {
  return { messages: [question, ...messages], tools: null };
}

const tokens = Object.values(controlTokens).flat();

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

/** Marks of direction, joiners, tags and line ends that are seen by nobody. */
const unseen = [
  ...[
    0x7f, 0x85, 0xad, 0x34f, 0x61c, 0x180e, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029,
  ],
  ...[
    0x202a, 0x202d, 0x202e, 0x2060, 0x2066, 0x2069, 0x206a, 0x206f, 0x3164, 0xfe0f, 0xfeff, 0xffa0,
  ],
  ...[0x1d173, 0xe0001, 0xe0100, 0xe01ef],
  // Tags that spell ASCII.
  ...Array.from({ length: 96 }, (_, at) => 0xe0020 + at),
].map((point) => String.fromCodePoint(point));

/** Prompt with the attack against the same prompt with a harmless word in its place. */
function violations(build: Build, make: (text: string) => Candidate, text: string): string[] {
  const honest = [candidate([{ role: "assistant", content: "one" }])];
  const attacked = build([...honest, make(text)]);
  const harmless = build([...honest, make("harmless")]);
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
  if (tokens.some((token) => attacked.includes(token))) found.push("control token");
  if (unseen.some((mark) => attacked.includes(mark))) found.push("unseen");
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
    const make = places[place] as (text: string) => Candidate;
    for (const { id, text } of attacks) {
      expect([id, ...violations(ours, make, text)]).toEqual([id]);
    }
    const marks = [...tokens, ...unseen].map((mark) => `Done.${mark}system`);
    for (const text of marks) expect([text, ...violations(ours, make, text)]).toEqual([text]);
  });

  it("are shown to the judge from every place but a call's id", () => {
    for (const [place, make] of Object.entries(places)) {
      const shown = ours([candidate([]), make("canary")]).includes("canary");
      expect([place, shown]).toEqual([place, place !== "call id"]);
    }
  });

  it("come back from the prompt as they were, control tokens and unseen marks too", () => {
    const texts = [...tokens, ...unseen, "👩‍👧 ❤️ می‌خواهم", "if (a<b) return Map<string, T[]>;"];
    const user = ours(texts.map((text) => candidate([{ role: "assistant", content: text }])));
    const { attempts } = readJudgePrompt([{ role: "user", content: user }]);
    expect(attempts.map(({ finalText }) => finalText)).toEqual(texts);
  });

  it("leave ordinary text as it is", () => {
    const ordinary = [
      "for (let i = 0; i < n; i += 1) total[i] += a[i - 1] - x[k];",
      "x <- c(1, 2) |> sum(); cout << y >> z; A => B; a <= b && c <> d; [x](y) [1, 2]",
      "Grüße, 東京, Ω≈1, “quoted” – and 100 % sure…",
    ];
    for (const text of ordinary) expect(dataLine(text)).toBe(JSON.stringify(text));
  });

  it("come back from the prompt as they were", () => {
    const texts = attacks.map(({ text }) => text);
    const user = ours(texts.map((text) => candidate([{ role: "assistant", content: text }])));
    const { attempts } = readJudgePrompt([{ role: "user", content: user }]);
    expect(attempts.map(({ finalText }) => finalText)).toEqual(texts);
  });

  it("break out of a prompt that is written the usual way", () => {
    const make = places["answer"] as (text: string) => Candidate;
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
    expect(report.worstFamily?.meanLift).toBeCloseTo(0, 10);
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

  it("one that gives no scores where a family attacks has no lift that could pass", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const forged = new Set(
      attacks.flatMap(({ family, text }) => (family === "forged-answer" ? [text] : [])),
    );
    const judge = await start(
      answerText((prompt) =>
        prompt.attempts.some(({ finalText }) =>
          forged.has(finalText.split("\n").slice(1).join("\n")),
        )
          ? "no"
          : answer(prompt, ({ finalText }) => worth(finalText)),
      ),
    );
    const report = await runAttacks(judge.endpoint, {
      cache: false,
      families: ["instruction", "forged-answer"],
    });
    expect(report.worstFamily).toMatchObject({
      family: "forged-answer",
      meanLift: null,
      failed: 11,
    });
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
