import { expect, it } from "vitest";
import { scoreAnswer } from "./reward.ts";

const bill = { name: "Crown Cleaning", amount: 61.4, due: "9 June" };

it.each([
  ['{"name": "Crown Cleaning", "amount": 61.40, "due": "9 June"}', 1],
  [' {"due":"9 June","amount":61.4,"name":"Crown Cleaning"}\n', 1],
  // One value wrong, two, three.
  ['{"name": "Crown Cleaning", "amount": 61.41, "due": "9 June"}', 0.8],
  ['{"name": "Crown", "amount": 61.4, "due": "June 9"}', 0.6],
  ['{"name": "", "amount": 0, "due": ""}', 0.4],
  // A number in quotes is not that number.
  ['{"name": "Crown Cleaning", "amount": "61.40", "due": "9 June"}', 0.8],
  // Keys missing and invented: right values count, the keys do not.
  ['{"name": "Crown Cleaning", "amount": 61.4}', 0.6],
  ['{"name": "Crown Cleaning", "amount": 61.4, "due": "9 June", "paid": false}', 0.8],
  ["{}", 0.2],
  // Not one JSON object.
  ['Here it is: {"name": "Crown Cleaning", "amount": 61.4, "due": "9 June"}', 0],
  ['{"name": "Crown Cleaning", "amount": 61.4, "due": "9 June"', 0],
  ['[{"name": "Crown Cleaning", "amount": 61.4, "due": "9 June"}]', 0],
  ["null", 0],
  ["", 0],
])("gives %s the reward %d", (answer, reward) => {
  const scored = scoreAnswer(answer, bill);
  expect(scored.reward).toBe(reward);
  expect(scored.metrics["exact"]).toBe(reward === 1 ? 1 : 0);
  expect(scored.metrics["json"]).toBe(reward === 0 ? 0 : 1);
});
