import { messageText } from "@hone/core";
import { rulerScoreGroup } from "@hone/ruler";
import { afterEach, expect, it, vi } from "vitest";
import { questions, rightAnswers } from "./corpus.ts";
import { groupsOf, inOrder } from "./groups.ts";

afterEach(() => {
  vi.unstubAllEnvs();
});

it("counts pairs of different worth, and half of one that is told by no score", () => {
  expect(inOrder([0.2, 0.9, 0.5], [0, 4, 4])).toBe(1);
  expect(inOrder([0.5, 0.5, 0.9], [1, 2, 3])).toBeCloseTo(2.5 / 3, 12);
  expect(inOrder([0.9, 0.1, 0.5], [0, 2, 2])).toBe(0);
  expect(inOrder([null, null, null], [0, 1, 2])).toBe(0.5);
});

it("learns from the very form in which RULER asks", async () => {
  vi.stubEnv("HONE_RULER_SECRET", "of-the-test");
  const [{ group }] = groupsOf(5, 1) as [ReturnType<typeof groupsOf>[number]];
  const asked: { role: string; content: string }[][] = [];
  const judge = { baseURL: "http://judge.test/v1", apiKey: "key", model: "judge" };
  const scored = rulerScoreGroup(group, judge, {
    cache: false,
    swallowErrors: false,
    maxRetries: 0,
    fetch: async (_, init) => {
      asked.push(
        (JSON.parse(init?.body as string) as { messages: (typeof asked)[number] }).messages,
      );
      return await Promise.resolve(new Response("{}", { status: 400 }));
    },
  });
  await expect(scored).rejects.toThrow("400");
  const [question] = questions(5, 1);
  const form = (text: string | undefined) =>
    text
      ?.replaceAll(/\b[0-9a-f]{16}\b/g, "KEY")
      .replaceAll(/\b[0-9a-f]{8}\b/g, "ID")
      // The attempts' order is RULER's own.
      .split("\n")
      .sort();
  expect(asked[0]?.map(({ role }) => role)).toEqual(["system", "user"]);
  expect(question?.system).toBe(asked[0]?.[0]?.content);
  expect(form(question?.user)).toEqual(form(asked[0]?.[1]?.content));
});

it("demonstrates what each attempt is worth, and in the control what others are", () => {
  const scores = (shuffled: boolean) =>
    rightAnswers(7, 40, shuffled).map(({ messages }) => {
      const said = JSON.parse(messageText(messages.at(-1)!)) as {
        scores: { id: string; score: number }[];
      };
      return said.scores;
    });
  const worth = questions(7, 40).map(({ shown }) =>
    shown.map((one) => ({ id: one.id, explanation: "", score: one.worth / 4 })),
  );
  expect(scores(false)).toEqual(worth);
  const flat = (all: { score: number }[][]) => all.flat().map(({ score }) => score);
  expect(flat(scores(true))).not.toEqual(flat(worth));
  const sorted = (all: number[]) => all.toSorted((a, b) => a - b);
  expect(sorted(flat(scores(true)))).toEqual(sorted(flat(worth)));
});
