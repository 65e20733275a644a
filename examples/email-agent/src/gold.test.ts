import { describe, expect, it } from "vitest";
import type { Question } from "./corpus.ts";
import { episodeMetrics, goldReward, type Episode } from "./gold.ts";

const question: Question = {
  ...{ inbox: 0, question: "What is the room of Falcon?", answer: "B2", source: "m1" },
  kind: "told once",
};
const episode = (rest: Partial<Episode> = {}): Episode => ({
  ...{ answer: "B2", sources: ["m1"], found: new Set(["m1"]), read: new Set(["m1"]) },
  ...{ invalidReads: 0, turns: 3, mostTurns: 6, failure: null },
  ...rest,
});
const none = new Set<string>();

describe("the gold reward", () => {
  it("is most for a right answer with its source alone, in few turns", () => {
    expect(goldReward(question, episode())).toBeCloseTo(1 + 0.3 + 0.1 + 0.05);
    expect(goldReward(question, episode({ sources: ["m1", "m2"] }))).toBeCloseTo(1.4);
    expect(goldReward(question, episode({ sources: [] }))).toBeCloseTo(1.05);
    expect(goldReward(question, episode({ turns: 6, answer: " b2" }))).toBeCloseTo(1.4);
  });

  it("gives partial credits below a right answer, and a guess costs more than not to know", () => {
    const wrong = episode({ answer: "A1" });
    const unknown = episode({ answer: "I don't know", sources: [] });
    expect(goldReward(question, wrong)).toBeCloseTo(-0.6);
    expect(goldReward(question, unknown)).toBeCloseTo(0.3);
    expect(goldReward(question, episode({ answer: null, sources: [] }))).toBeCloseTo(0.3);
    const blind = { found: none, read: none, sources: [], invalidReads: 1 };
    expect(goldReward(question, episode({ ...blind, answer: "A1" }))).toBeCloseTo(-1);
  });

  it("is least for what is no call at all", () => {
    const nothing = { answer: null, sources: [], found: none, read: none };
    const of = (failure: Episode["failure"]) =>
      goldReward(question, episode({ ...nothing, failure }));
    expect(of("unparseable")).toBeCloseTo(-1.9);
    expect(of("bad_tool")).toBeCloseTo(-1.8);
    expect(of("bad_arguments")).toBeCloseTo(-1.7);
  });

  it("counts what is looked at beside it", () => {
    expect(episodeMetrics(question, episode())).toEqual({
      ...{ correct: 1, sourcesRight: 1, dontKnow: 0, badCalls: 0, turns: 3 },
    });
    const unknown = episode({ answer: "I don’t know.", sources: [], invalidReads: 1 });
    expect(episodeMetrics(question, unknown)).toEqual({
      ...{ correct: 0, sourcesRight: 0, dontKnow: 1, badCalls: 1, turns: 3 },
    });
  });
});
