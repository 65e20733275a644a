import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import type { RunningServer } from "./mcp-server.ts";
import { toOpenAITools } from "./openai-tools.ts";
import type { Scenario } from "./scenarios.ts";

export interface AgentOptions {
  mostTurns: number;
  temperature: number;
  answerTokens: number;
  /** Whether every answer has to be calls, with arguments that keep to the tools' schemas. Such answers are `constrained`. */
  held: boolean;
}

/** A call of the server that was made. */
export interface MadeCall {
  tool: string;
  arguments: Record<string, unknown>;
  failed: boolean;
}

export interface Episode {
  calls: MadeCall[];
  /** What the agent said of the task when it was done. Null where turns, tokens or context ran out. */
  summary: string | null;
  turns: number;
  tokens: number;
}

/** Ends a rollout. The server's own tools keep their names clear of it. */
export const completeTask: OpenAI.ChatCompletionFunctionTool = {
  type: "function",
  function: {
    name: "complete_task",
    description: "Ends the task.",
    parameters: {
      type: "object",
      properties: { summary: { type: "string", description: "What came of the task." } },
      required: ["summary"],
      additionalProperties: false,
    },
  },
};

// #region agent
/** Calls the server's tools until it completes the task, or answers in plain words. */
export async function playScenario(
  model: RolloutModel,
  server: RunningServer,
  { task }: Pick<Scenario, "task">,
  { mostTurns, temperature, answerTokens, held }: AgentOptions,
): Promise<Episode> {
  const { model: name, ...connection } = model.connection();
  const client = new OpenAI(connection);
  const { tools, names } = toOpenAITools(server.tools, { held, reserved: ["complete_task"] });
  const messages = opening(task, server.instructions, mostTurns);
  const episode: Episode = { calls: [], summary: null, turns: 0, tokens: 0 };
  while (episode.turns < mostTurns && episode.summary === null) {
    const completion = await client.chat.completions
      .create(
        {
          ...{ model: name, messages, temperature, max_completion_tokens: answerTokens },
          tools: [...tools, completeTask],
          ...(held ? { tool_choice: "required" as const } : {}),
        },
        { signal: model.signal },
      )
      .catch(unlessFull);
    if (completion === null) break;
    episode.turns += 1;
    episode.tokens += completion.usage?.completion_tokens ?? 0;
    const { message, finish_reason: reason } = completion.choices[0] ?? {};
    if (!message) break;
    messages.push(message);
    if (!message.tool_calls?.length) {
      // What a limit cut is the beginning of a call as often as of an answer.
      if (reason === "length") break;
      episode.summary = message.content ?? "";
    }
    // One after another: a server's tools may depend on what the one before did.
    for (const call of message.tool_calls ?? []) {
      if (call.type !== "function") continue;
      const args = readArguments(call.function.arguments);
      let content = '{"error":"The arguments are no JSON object."}';
      if (args && call.function.name === "complete_task") {
        episode.summary = typeof args["summary"] === "string" ? args["summary"] : "";
        content = "The task is over.";
      } else {
        const tool = names.get(call.function.name) ?? call.function.name;
        const result = args ? await server.call(tool, args) : { text: content, failed: true };
        episode.calls.push({ tool, arguments: args ?? {}, failed: result.failed });
        content = result.text;
      }
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
  }
  return episode;
}
// #endregion

export function opening(
  task: string,
  instructions: string,
  mostTurns: number,
): OpenAI.ChatCompletionMessageParam[] {
  const rules = `You do tasks with the tools of a server. You have ${mostTurns} turns. When the task is done, call complete_task.`;
  return [
    { role: "system", content: [rules, instructions].filter(Boolean).join("\n\n") },
    { role: "user", content: task },
  ];
}

/** A conversation that no longer fits ends; any other error is the rollout's. */
function unlessFull(error: unknown): null {
  if (error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded") {
    return null;
  }
  throw error;
}

function readArguments(given: string): Record<string, unknown> | null {
  try {
    const parsed: unknown = JSON.parse(given === "" ? "{}" : given);
    const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
    return isObject ? (parsed as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
