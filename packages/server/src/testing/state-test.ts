import { test as base } from "vitest";
import type { Engine } from "../ports/engine.ts";
import type { StateOptions } from "../state.ts";
import {
  adapterList,
  fileTrainer,
  openTestState,
  temporaryFolder,
  type TestState,
} from "./fixtures.ts";

/**
 * A test with a server of its own in `folder`, whose engine keeps a list of adapters and whose trainer writes
 * files. A file with another setting overrides `options` or `models`.
 */
export const test = base
  // oxlint-disable-next-line no-empty-pattern
  .extend("folder", async ({}, { onCleanup }): Promise<string> => {
    const { path, remove } = await temporaryFolder();
    onCleanup(remove);
    return path;
  })
  .extend("engine", () => adapterList())
  .extend("engines", ({ engine }): Engine[] => [engine])
  .extend("trainer", () => fileTrainer())
  .extend("clock", () => ({ now: 1_000_000 }))
  .extend("options", (): Partial<StateOptions> => ({}))
  /** What is made before the test begins. */
  .extend("models", (): string[] => ["m"])
  .extend(
    "server",
    async ({ folder, engines, trainer, options, models }, { onCleanup }): Promise<TestState> => {
      const server = await openTestState(folder, { engine: () => engines, trainer, ...options });
      onCleanup(() => server.close());
      for (let nth = 2; nth <= engines.length; nth++) await server.engines.admit(`engine ${nth}`);
      for (const name of models) await server.call("PUT", `/v1/models/${name}`, {});
      return server;
    },
  );
