import type { Tool } from "@modelcontextprotocol/client";
import OpenAI from "openai";
import { z } from "zod";
import { scenarioSchema, type Scenario } from "./scenarios.ts";

const answerSchema = z.strictObject({ scenarios: z.array(scenarioSchema.omit({ calls: true })) });

// #region with-a-model
/**
 * Scenarios that a model writes after it has read the tools. It is asked in portions and told what there is already;
 * those that repeat one, or name a tool that the server lacks, are left out.
 */
export async function scenariosFromModel(
  { client, model }: { client: OpenAI; model: string },
  { tools, instructions }: { tools: readonly Tool[]; instructions: string },
  count: number,
  signal: AbortSignal,
): Promise<Scenario[]> {
  const known = new Set(tools.map(({ name }) => name));
  const kept = new Map<string, Scenario>();
  const most = Math.ceil(count / portion) * 2;
  for (let asked = 0; asked < most && kept.size < count; asked += 1) {
    const wanted = Math.min(portion, count - kept.size);
    const completion = await client.chat.completions.create(
      {
        model,
        messages: [
          { role: "user", content: prompt(tools, instructions, wanted, [...kept.keys()]) },
        ],
        response_format: {
          type: "json_schema",
          json_schema: { name: "scenarios", schema: z.toJSONSchema(answerSchema) },
        },
      },
      { signal },
    );
    const answer = readAnswer(completion.choices[0]?.message.content ?? "");
    for (const scenario of answer) {
      const needs = scenario.tools.length > 0 && scenario.tools.every((name) => known.has(name));
      if (needs && kept.size < count) kept.set(scenario.task, scenario);
    }
  }
  return [...kept.values()];
}
// #endregion

const portion = 10;

/** An answer that cannot be read counts as none: the next portion makes up for it. */
function readAnswer(content: string): Scenario[] {
  try {
    return answerSchema.parse(JSON.parse(content)).scenarios;
  } catch {
    return [];
  }
}

function prompt(
  tools: readonly Tool[],
  instructions: string,
  count: number,
  had: readonly string[],
): string {
  const shown = tools.map(({ name, description, inputSchema }) =>
    JSON.stringify({ name, description, inputSchema }),
  );
  return [
    `Write ${count} tasks that a user could give to an agent that has these tools and nothing else.`,
    "A task says what to achieve and gives each value that it needs; it names no tool. The server starts with what its tools show and nothing else. Difficulty goes from 1, one call, to 5, many calls that depend on each other; mix them. List the tools that each task takes.",
    `Tools:\n${shown.join("\n")}`,
    ...(instructions === "" ? [] : [`The server says: ${instructions}`]),
    ...(had.length === 0 ? [] : [`There are already these; write others:\n${had.join("\n")}`]),
  ].join("\n\n");
}
