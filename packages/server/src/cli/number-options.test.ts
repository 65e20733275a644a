import { expect, it } from "vitest";
import { atLeastOne, wholeNumber } from "./number-options.ts";
import { rolloutsCommand } from "./rollouts.ts";
import { serveCommand } from "./serve.ts";

it.each(["", " ", "-1", "1.5", "9007199254740993", "two"])("%j is no whole number", (text) => {
  expect(() => wholeNumber(text)).toThrow("It must be a whole number.");
  expect(() => atLeastOne(text)).toThrow("It must be a whole number.");
});

it("takes zero where zero may be", () => {
  expect(wholeNumber("0")).toBe(0);
  expect(() => atLeastOne("0")).toThrow("It must be at least 1.");
  expect(atLeastOne("12")).toBe(12);
});

it.each([
  [serveCommand(), ["--base", "b", "--port", ""]],
  [serveCommand(), ["--base", "b", "--max-model-len", ""]],
  [rolloutsCommand(), ["--step", ""]],
  [rolloutsCommand(), ["--limit", ""]],
])("each command refuses an empty number", async (command, args) => {
  command.exitOverride().configureOutput({ writeErr: () => undefined });
  await expect(command.parseAsync(args, { from: "user" })).rejects.toThrow(
    "It must be a whole number.",
  );
});
