import { expect, it } from "vitest";
import { rolloutsCommand } from "./rollouts.ts";
import { serveCommand } from "./serve.ts";

it.each([
  [serveCommand(), ["--base", "b", "--port", ""]],
  [serveCommand(), ["--base", "b", "--max-model-len", ""]],
  [rolloutsCommand(), ["--step", ""]],
  [rolloutsCommand(), ["--limit", ""]],
])("each command refuses an empty number", async (command, args) => {
  command.exitOverride().configureOutput({ writeErr: () => undefined });
  await expect(command.parseAsync(args, { from: "user" })).rejects.toThrow(
    "It must be a whole number",
  );
});
