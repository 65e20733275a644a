import type { Tool } from "@modelcontextprotocol/client";
import OpenAI from "openai";
import { expect, it } from "vitest";
import { scenariosFromModel } from "./model-scenarios.ts";

const tools = [
  { name: "look", description: "Looks.", inputSchema: { type: "object", properties: {} } },
] as Tool[];
const scenario = (task: string, names = ["look"], rest = {}) => ({
  ...{ task, difficulty: 2, tools: names },
  ...rest,
});

/** Answers with these texts in turn, over openai-node. */
function asking(answers: readonly string[], count: number) {
  const prompts: string[] = [];
  const fetch = async (_url: unknown, init?: { body?: unknown }) => {
    const body = JSON.parse(String(init?.body)) as { messages: { content: string }[] };
    prompts.push(body.messages[0]!.content);
    const message = { role: "assistant", content: answers[prompts.length - 1] ?? "" };
    return Response.json({ choices: [{ index: 0, message, finish_reason: "stop" }] });
  };
  const client = new OpenAI({ baseURL: "http://model.test/v1", apiKey: "k", fetch });
  const server = { tools, instructions: "Look twice." };
  const { signal } = new AbortController();
  return scenariosFromModel({ client, model: "m" }, server, count, signal).then((kept) => ({
    ...{ kept, prompts },
  }));
}

it("keeps what a model writes of the server's tools, each once, and asks again for the rest", async () => {
  const said = (...scenarios: unknown[]) => JSON.stringify({ scenarios });
  const { kept, prompts } = await asking(
    [
      said(scenario("A"), scenario("A"), scenario("B", ["fly"]), scenario("C", [])),
      "Sorry, here are some: A, B",
      said(scenario("D", ["look"], { difficulty: 9 })),
      said(scenario("E"), scenario("F")),
    ],
    12,
  );
  expect(kept.map(({ task }) => task)).toEqual(["A", "E", "F"]);
  expect(prompts).toHaveLength(4);
  expect(prompts[0]).toMatch(/^Write 10 tasks/);
  expect(prompts[0]).toContain('{"name":"look","description":"Looks."');
  expect(prompts[0]).toContain("Look twice.");
  expect(prompts[3]).toMatch(/There are already these; write others:\nA$/);
});

it("stops when there are enough", async () => {
  const two = JSON.stringify({ scenarios: [scenario("A"), scenario("B")] });
  const { kept, prompts } = await asking([two, two], 1);
  expect(kept).toEqual([scenario("A")]);
  expect(prompts).toHaveLength(1);
});
