import type { SftExample } from "@hone/client";
import type OpenAI from "openai";
import { completeTask, opening } from "./agent.ts";
import { withServer, type McpServer } from "./mcp-server.ts";
import { toOpenAITools } from "./openai-tools.ts";
import type { Scenario } from "./scenarios.ts";

const atOnce = 4;

/**
 * Transcripts of a scripted expert: it makes the calls that a scenario asks for, one a turn, on a server of its own,
 * and completes the task. The results are the server's.
 */
export async function demonstrations(
  server: McpServer,
  scenarios: readonly Scenario[],
  { mostTurns, held, signal }: { mostTurns: number; held: boolean; signal: AbortSignal },
): Promise<SftExample[]> {
  const shown: SftExample[] = [];
  for (let from = 0; from < scenarios.length; from += atOnce) {
    const wave = scenarios.slice(from, from + atOnce);
    shown.push(...(await Promise.all(wave.map(demonstration))));
  }
  return shown;

  function demonstration({ task, calls = [] }: Scenario): Promise<SftExample> {
    return withServer(server, signal, async (running) => {
      const { tools, names } = toOpenAITools(running.tools, {
        ...{ held, reserved: [completeTask.function.name] },
      });
      const known = new Map([...names].map(([shownAs, name]) => [name, shownAs]));
      const messages = opening(task, running.instructions, mostTurns);
      const call = (name: string, args: object, result: string) => {
        const id = `call_${messages.length}`;
        const made = { name, arguments: JSON.stringify(args) };
        messages.push(
          {
            ...{ role: "assistant" as const, content: "" },
            tool_calls: [{ id, type: "function", function: made }],
          },
          { role: "tool", tool_call_id: id, content: result },
        );
      };
      for (const { tool, arguments: args } of calls) {
        const { text } = await running.call(tool, args);
        call(known.get(tool) ?? tool, args, text);
      }
      call(completeTask.function.name, { summary: "Done." }, "The task is over.");
      // Nothing is learnt of what follows the last call.
      const turns: OpenAI.ChatCompletionMessageParam[] = messages.slice(0, -1);
      // OpenAI's types also know messages of roles that no expert has.
      return { messages: turns, tools: [...tools, completeTask] } as SftExample;
    });
  }
}
