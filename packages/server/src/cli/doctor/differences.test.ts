import { expect, it } from "vitest";
import { worstOf } from "./differences.ts";

const right = Array.from({ length: 7 }, (_, at) => ({ engine: `gpu-${at}`, values: [1e-6, 2e-6] }));

it("does not hide one engine of eight that is off among seven that are right", () => {
  const off = { engine: "gpu-7", values: [4e-3] };
  expect(worstOf([...right, off])).toEqual({ engine: "gpu-7", mean: 4e-3, engines: 8 });
  expect(worstOf(right).mean).toBeLessThan(1e-5);
});

it("takes an engine that answered without tokens for the worst", () => {
  const silent = { engine: "gpu-7", values: [] };
  expect(worstOf([silent, ...right])).toMatchObject({ engine: "gpu-7", mean: Number.NaN });
  expect(worstOf([...right, silent])).toMatchObject({ engine: "gpu-7", mean: Number.NaN });
  expect(worstOf([]).mean).toBeNaN();
});
