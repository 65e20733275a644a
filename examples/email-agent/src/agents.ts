import { HoneError } from "@hone/core";
import type { Agent } from "./desk.ts";

/** Every framework in which the agent is written, and its file in `frameworks`. The first is in `agent.ts`. */
const files = {
  openai: null,
  "openai-responses": "openai-responses",
  "openai-run-tools": "openai-run-tools",
  "ai-sdk": "ai-sdk",
  "openai-agents": "openai-agents",
  langchain: "langchain",
  langgraph: "langgraph",
  mastra: "mastra",
  anthropic: "anthropic",
  fetch: "plain-fetch",
} as const;
export type AgentName = keyof typeof files;
export const agentNames = Object.keys(files) as AgentName[];

export function isAgentName(name: string): name is AgentName {
  return Object.hasOwn(files, name);
}

/** Frameworks are a package of their own: who does not use them need not install them. */
export async function loadAgent(name: Exclude<AgentName, "openai">): Promise<Agent> {
  const file = new URL(`../frameworks/${files[name]}.ts`, import.meta.url);
  try {
    return ((await import(file.href)) as { agent: Agent }).agent;
  } catch (cause) {
    throw new HoneError(
      `The agent ${name} does not load: ${(cause as Error).message}. Install the packages of examples/email-agent/frameworks. Mastra needs Node 22.13.`,
      { code: "invalid_config", param: "agent", cause },
    );
  }
}
