import { describe, expect, it } from "vitest";
import { curves, type RunRecord, sparkline } from "./curves.ts";
import type { EvaluationRecord } from "./evaluation-record.ts";

function evaluation(label: string, step: number, rest: Partial<EvaluationRecord> = {}): RunRecord {
  return {
    type: "evaluation",
    ...{ label, step, metric: "exact", scenarios: 20, failed: 0 },
    score: { mean: 0.5, low: 0.4, high: 0.6 },
    ...rest,
  };
}

describe("held-out scores", () => {
  const colored = /<circle cx="([\d.]+)" cy="[\d.]+" r="3.5" fill="(#\w+)"/g;
  /** Marks of the panel and of its legend. */
  const marksOf = (svg: string) => [...svg.matchAll(colored)].map(([, x, color]) => ({ x, color }));

  it("have a name, a colour and a place of their own", () => {
    const svg = curves("run", [
      evaluation("base greedy", 0),
      evaluation("base sampled", 0),
      evaluation("trained greedy", 10),
    ]);
    for (const name of ["base greedy", "base sampled", "trained greedy"]) {
      expect(svg).toContain(`>${name}</text>`);
    }
    const marks = marksOf(svg);
    expect(marks).toHaveLength(6);
    expect(new Set(marks.slice(3).map(({ color }) => color)).size).toBe(3);
    expect(new Set(marks.slice(3).map(({ x }) => x)).size).toBe(3);
    for (const { x } of marks.slice(3)) expect(Number(x)).toBeGreaterThan(56);
    expect(marks.slice(0, 3).map(({ color }) => color)).toEqual(
      marks.slice(3).map(({ color }) => color),
    );
  });

  it("name a single one too", () => {
    expect(curves("run", [evaluation("trained", 3)])).toContain(">trained</text>");
  });

  it("of a model elsewhere are a line to compare with, not a mark of the run", () => {
    const other = evaluation("gpt", 10, { comparison: true });
    const svg = curves("run", [evaluation("base", 0), other]);
    expect(svg).toMatch(/stroke-dasharray="5 4"\/><text[^>]*>gpt<\/text>/);
    expect(marksOf(svg)).toHaveLength(2);
    // Alone it is shown as well.
    expect(curves("run", [other])).toMatch(/held out: exact.*>gpt</s);
  });

  it("of labels that count the steps are one series", () => {
    const svg = curves(
      "run",
      [5, 10].map((step) => evaluation(`step-${step}`, step)),
    );
    expect(svg).toContain(">step</text>");
    expect(svg).not.toContain(">step-5</text>");
    expect(curves("run", [evaluation("qwen-2", 5)])).toContain(">qwen-2</text>");
  });

  it("of many labels keep to the panel and can be told apart", () => {
    const labels = Array.from({ length: 12 }, (_, n) => `policy ${"abcdefghijkl"[n]} of the run`);
    const svg = curves(
      "run",
      labels.map((label, step) => evaluation(label, step)),
    );
    const places = [...svg.matchAll(/<text x="([\d.]+)" y="(\d+)" fill="#555">/g)];
    expect(places).toHaveLength(10);
    for (const [, x] of places) expect(Number(x)).toBeLessThan(440 - 100);
    expect(new Set(places.map(([, , y]) => y)).size).toBe(5);
    expect(svg).toContain(">2 more</text>");
    expect(svg).toContain("<path");
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it("of a few scenarios have no interval", () => {
    const few = curves("run", [evaluation("base", 0, { scenarios: 5 })]);
    expect(few).not.toContain('stroke-width="1.5"');
    expect(curves("run", [evaluation("base", 0)])).toContain('stroke-width="1.5"');
  });
});

describe("sparkline", () => {
  it("shows a curve in one line", () => {
    expect(sparkline([0, 0.5, 1])).toBe("0 ▁▅█ 1");
    expect(sparkline([])).toBe("");
    expect(
      sparkline(
        Array.from({ length: 100 }, (_, i) => i),
        4,
      ),
    ).toBe("0 ▁▃▆█ 99");
  });
});
