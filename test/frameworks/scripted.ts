import type { AnthropicConnection, Connection } from "@hone/client";
import { expect } from "vitest";
import type { EngineRequest } from "../../packages/server/src/ports/engine.ts";
import type { LedgerCompletion } from "../../packages/server/src/ports/ledger.ts";
import { createRendererClient } from "../../packages/server/src/renderer/http-renderer.ts";
import { startRendererChild } from "../../packages/server/src/testing/running-engine.ts";
import {
  createScriptedEngine,
  type ScriptedEngine,
} from "../../packages/server/src/testing/scripted-engine.ts";
import { serveGateway } from "../../packages/server/src/testing/served-gateway.ts";

type Line = ScriptedEngine["lines"][number];

/** The server's gateway over its real renderer, where the model says what it is told to say. */
export interface Scripted {
  calls(...calls: [name: string, args: object][]): Line;
  text(content: string): Line;
  /** Begins a rollout of these answers. */
  play(lines: Line[]): {
    signal: AbortSignal;
    connection(): Connection;
    anthropic(): AnthropicConnection;
  };
  /** What was asked of the engine, and recorded, since the rollout began. */
  requests(): EngineRequest[];
  recorded(): LedgerCompletion[];
  /**
   * Fails unless the rollout took so many answers, each prompt beginning with the ids of the last prompt and answer,
   * but for a split at the second, where `split` names its reason.
   */
  expectOneConversation(answers: number, split?: string | null): void;
  close(): Promise<void>;
}

export async function startScripted(): Promise<Scripted> {
  const child = await startRendererChild();
  const renderer = createRendererClient({ baseURL: () => child.baseURL, key: () => child.key });
  const engine = createScriptedEngine(renderer);
  const gateway = await serveGateway(engine, renderer);
  let rollouts = 0;
  const requests = (): EngineRequest[] => [...engine.requests];
  const recorded = (): LedgerCompletion[] => gateway.ledger.of(`ro_${rollouts}`);
  return {
    calls: (...calls) => ({
      answer: {
        content: null,
        tool_calls: calls.map(([name, args]) => ({
          ...{ id: name, type: "function" as const },
          function: { name, arguments: JSON.stringify(args) },
        })),
      },
    }),
    text: (content) => ({ answer: { content } }),
    play(lines) {
      engine.requests.length = 0;
      engine.lines.splice(0, engine.lines.length, ...lines);
      const baseURL = `${gateway.baseURL}/v1/rollouts/ro_${++rollouts}`;
      const same = { apiKey: "k", model: "m", fetch };
      return {
        signal: new AbortController().signal,
        connection: () => ({ ...same, baseURL: `${baseURL}/v1` }),
        anthropic: () => ({ ...same, baseURL, authToken: null }),
      };
    },
    requests,
    recorded,
    expectOneConversation(answers, split = null) {
      const all = recorded();
      expect(all).toHaveLength(answers);
      expect(all.every(({ delivered }) => delivered)).toBe(true);
      const splits = all.map(({ splitReason }) => splitReason);
      expect(splits).toEqual(all.map((_, i) => (i === 1 ? split : null)));
      for (const [i, { parentId }] of all.entries()) {
        const before = all[i - 1];
        if (!before || splits[i]) continue;
        expect(parentId).toBe(before.id);
        const known = [...engine.requests[i - 1]!.prompt, ...before.sampled];
        expect(engine.requests[i]!.prompt.slice(0, known.length)).toEqual(known);
      }
    },
    async close() {
      await gateway.close();
      await renderer.close();
      await child.stop();
    },
  };
}
