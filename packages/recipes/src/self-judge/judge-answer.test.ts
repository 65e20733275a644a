import { describe, expect, it } from "vitest";
import { readScores, readScoresAsTrinity } from "./judge-answer.ts";

describe("a judgement is read", () => {
  it.each<[text: string, count: number, scores: number[] | null]>([
    ["The first is right.\n[1, 0]", 2, [1, 0]],
    ["[0.25, .5, 1e-1]", 3, [0.25, 0.5, 0.1]],
    // A citation behind the list is passed over.
    ["[0.9, 0.1], see [3]", 2, [0.9, 0.1]],
    ["first [0, 1], no: [1, 0]", 2, [1, 0]],
    ["[1.2, 0]", 2, null],
    ["[1, 0, 0]", 2, null],
    ["[a, b]", 2, null],
    ["[[1, 0]]", 2, [1, 0]],
    ["none", 2, null],
    ["[]", 0, null],
  ])("%j for %i", (text, count, scores) => {
    expect(readScores(text, count)).toEqual(scores);
  });
});

describe("a judgement is read as Trinity-RFT reads it", () => {
  it.each<[text: string, count: number, scores: number[] | null]>([
    ["[1, 0]", 2, [1, 0]],
    ["[1.2, -3]", 2, [1, 0]],
    ["[0.9, 0.1], see [3]", 2, null],
    ["[1, 0, 0]", 2, null],
    ["] [", 2, null],
    ["", 2, null],
  ])("%j for %i", (text, count, scores) => {
    expect(readScoresAsTrinity(text, count)).toEqual(scores);
  });
});
