import { expect, it } from "vitest";
import { judgeTrust } from "./judge-trust.ts";

function trustOf(above: number | null, window = 12) {
  const changes: boolean[] = [];
  const trust = judgeTrust({
    above,
    window,
    onChange: ({ trusted }) => void changes.push(trusted),
  });
  return { trust, changes };
}
const times = (count: number, value: number) => Array.from({ length: count }, () => value);

it("trusts a judge once half a window says that it judges better than guessing", () => {
  const { trust, changes } = trustOf(0.5);
  expect(trust).toMatchObject({ trusted: false, accuracy: null });
  trust.measured(times(5, 0.9));
  expect(trust.trusted).toBe(false);
  expect(trust.reason).toMatch(/5 groups .* 6 are needed/);
  trust.measured([0.9]);
  expect(trust).toMatchObject({ trusted: true, accuracy: { value: expect.closeTo(0.9, 12) } });
  expect(changes).toEqual([true]);
});

it("does not trust one that guesses, and no longer one that has come to judge badly", () => {
  const { trust, changes } = trustOf(0.5);
  // .55 on average: the lower end of the interval is below.
  trust.measured([...times(6, 0.2), ...times(6, 0.9)]);
  expect(trust.trusted).toBe(false);
  expect(trust.reason).toMatch(/orders 55% .* above 50%/);
  trust.measured(times(12, 0.8));
  trust.measured(times(9, 0.1));
  expect(trust.trusted).toBe(false);
  expect(changes).toEqual([true, false]);
});

it("counts the newest groups only, and nothing where nothing was judged", () => {
  const { trust } = trustOf(0.5);
  trust.measured([]);
  expect(trust.accuracy).toBeNull();
  trust.measured([...times(50, 0.1), ...times(12, 1)]);
  expect(trust).toMatchObject({ trusted: true, accuracy: { value: 1 } });
});

it("null trusts always", () => {
  const { trust, changes } = trustOf(null);
  trust.measured(times(12, 0));
  expect(trust.trusted).toBe(true);
  expect(changes).toEqual([]);
});
