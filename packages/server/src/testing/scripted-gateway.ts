import type OpenAI from "openai";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { startRendererChild } from "./running-engine.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { createRendererClient, type RendererClient } from "../renderer/http-renderer.ts";
import type { Child } from "../supervise/child.ts";
import { createScriptedEngine, type ScriptedEngine } from "./scripted-engine.ts";
import { serveGateway, type ServedGateway } from "./served-gateway.ts";

type Message = OpenAI.ChatCompletionMessageParam;

export const tools: OpenAI.ChatCompletionTool[] = [
  { type: "function", function: { name: "move", parameters: { type: "object", properties: {} } } },
];

export const moveCall = (args: string) => ({
  id: "x",
  type: "function" as const,
  function: { name: "move", arguments: args },
});

/** What stands while a test of a `describe` runs. */
export interface ScriptedGateway {
  readonly renderer: RendererClient;
  readonly engine: ScriptedEngine;
  readonly gateway: ServedGateway;
  /** Of the rollout `ro_1`. */
  readonly client: OpenAI;
  /** What the policy answers within the rollout. */
  say(messages: Message[], rest?: Record<string, unknown>): Promise<OpenAI.ChatCompletionMessage>;
  /** Completions of the rollout. */
  recorded(): readonly LedgerCompletion[];
}

/**
 * To be called in a `describe`: a gateway for each of its tests. The renderer is the real one, the same for all of
 * them; only the words of the model are chosen by the test. `otherBase`: a folder in place of the tests' own base.
 */
export function useScriptedGateway(
  otherBase?: () => Promise<{ path: string; remove(): Promise<void> }>,
): ScriptedGateway {
  let base: { path: string; remove(): Promise<void> } | undefined;
  let child: Child;
  let renderer: RendererClient;
  let engine: ScriptedEngine;
  let gateway: ServedGateway;
  let client: OpenAI;

  beforeAll(async () => {
    base = await otherBase?.();
    child = await startRendererChild(base && ["--base", base.path]);
    renderer = createRendererClient({ baseURL: () => child.baseURL, key: () => child.key });
  });
  afterAll(async () => {
    await renderer?.close();
    await child?.stop();
    await base?.remove();
  });
  beforeEach(async () => {
    engine = createScriptedEngine(renderer);
    gateway = await serveGateway(engine, renderer);
    client = gateway.client("ro_1");
    return () => gateway.close();
  });

  return {
    get renderer() {
      return renderer;
    },
    get engine() {
      return engine;
    },
    get gateway() {
      return gateway;
    },
    get client() {
      return client;
    },
    say: async (messages, rest = {}) =>
      (await client.chat.completions.create({ model: "m", messages, ...rest })).choices[0]!.message,
    recorded: () => gateway.ledger.of("ro_1"),
  };
}
