import {
  Agent as OpenAIAgent,
  MaxTurnsExceededError,
  ModelBehaviorError,
  OpenAIProvider,
  Runner,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import type { Agent } from "../src/desk.ts";
import { withPlainTools } from "./plain-tools.ts";

/** Any JSON Schema of an object: nothing is checked here, the desk does so. */
type LooseSchema = {
  type: "object";
  properties: Record<string, never>;
  required: string[];
  additionalProperties: true;
};

/** OpenAI Agents JS. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { model: name, ...connection } = withPlainTools(desk.counted(model.connection()));
  const openAIClient = new OpenAI(connection);
  const runner = new Runner({
    modelProvider: new OpenAIProvider({ openAIClient, useResponses: false }),
    tracingDisabled: true, // traces would go to OpenAI
  });
  const answerer = new OpenAIAgent({
    name: "Answerer",
    instructions: system,
    model: name,
    modelSettings: { temperature: options.temperature, maxTokens: options.answerTokens },
    tools: desk.tools.map(({ function: { name: called, description = "", parameters = {} } }) =>
      tool({
        ...{ name: called, description, parameters: parameters as LooseSchema, strict: false },
        execute: (args: unknown) => desk.run(called, args),
      }),
    ),
    toolUseBehavior: () =>
      desk.ended
        ? { isFinalOutput: true, isInterrupted: undefined, finalOutput: "" }
        : { isFinalOutput: false, isInterrupted: undefined },
  });
  try {
    await runner.run(answerer, question, { maxTurns: mostTurns, signal: model.signal });
  } catch (error) {
    // No turns are left; or the model called what there is not.
    const over = error instanceof MaxTurnsExceededError || error instanceof ModelBehaviorError;
    if (!over) throw error;
  }
};
