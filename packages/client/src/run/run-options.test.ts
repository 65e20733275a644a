import { expect, it } from "vitest";
import { readSettings } from "./run-options.ts";

const task = { heldOut: [1, 2, 3] };

it("takes the task's defaults, and what is given over them", () => {
  const options = { steps: 4, train: { normalizerTokens: 32, warmupSteps: 1 } };
  const settings = readSettings({ ...task, options }, { steps: 7, train: { warmupSteps: 0 } });
  expect(settings).toMatchObject({ steps: 7, groupSize: 8, heldOut: 3 });
  expect(settings.train).toEqual({ normalizerTokens: 32, warmupSteps: 0 });
});

it.each<[Record<string, unknown>, RegExp]>([
  [{ normalizerToken: 32 }, /normalizerToken/],
  [{ learningRate: 1e-3 }, /learningRate/],
  [{ schedule: { type: "linear" } }, /schedule/],
  [{ clientToken: "a" }, /clientToken/],
  [{ normalizerTokens: 0 }, /normalizerTokens/],
])("refuses the training step's %j before anything is played", (train, message) => {
  expect(() => readSettings(task, { train })).toThrow(message);
  expect(() => readSettings({ ...task, options: { train } }, {})).toThrow(message);
});
