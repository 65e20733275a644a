import type { Agent } from "./agent.ts";

/** The Node of each set of releases. `.` is the newest that take Node 20; each has its own `package.json`. */
const nodeOf = { floor: 20, ".": 20, newest: 22 };
type Set = keyof typeof nodeOf;

export interface Entry {
  /** What the document calls it. */
  name: string;
  file: string;
  agent: string;
  /** Where it does not exist in all. */
  sets?: readonly Set[];
  /** How it says its answer, where that is not text. */
  final?: "object" | "tool";
  /** Why its conversation breaks, once in a rollout. */
  split?: "tools_changed";
  /** A program of its own: nothing stands between it and the server. */
  apart?: boolean;
}

const entries: readonly Entry[] = [
  { name: "openai chat", file: "openai-chat", agent: "agent" },
  { name: "openai runTools", file: "openai-run-tools", agent: "agent" },
  { name: "openai responses", file: "openai-responses", agent: "agent" },
  { name: "openai previous_response_id", file: "openai-responses", agent: "previous" },
  { name: "AI SDK, openai-compatible", file: "ai-sdk", agent: "compatible" },
  { name: "AI SDK, openai chat", file: "ai-sdk", agent: "chat" },
  { name: "AI SDK, openai responses", file: "ai-sdk", agent: "responses" },
  {
    ...{ name: "AI SDK, prepareStep", file: "ai-sdk-agent", agent: "prepared" },
    ...{ sets: [".", "newest"], split: "tools_changed" },
  },
  {
    ...{ name: "AI SDK, Output.object", file: "ai-sdk-agent", agent: "output" },
    ...{ sets: [".", "newest"], final: "object" },
  },
  { name: "OpenAI Agents, chat", file: "openai-agents", agent: "chat" },
  { name: "OpenAI Agents, responses", file: "openai-agents", agent: "responses" },
  { name: "LangChain", file: "langchain", agent: "agent" },
  {
    ...{ name: "LangChain, responseFormat", file: "langchain", agent: "format" },
    ...{ sets: [".", "newest"], final: "tool" },
  },
  {
    ...{ name: "LangChain, providerStrategy", file: "langchain", agent: "providerFormat" },
    ...{ sets: [".", "newest"], final: "object" },
  },
  { name: "LangGraph", file: "langgraph", agent: "agent" },
  { name: "Mastra", file: "mastra", agent: "agent", sets: ["newest"] },
  {
    ...{ name: "Mastra, structuredOutput", file: "mastra", agent: "structured" },
    ...{ sets: ["newest"], final: "object" },
  },
  { name: "Anthropic", file: "anthropic", agent: "agent" },
  { name: "Anthropic toolRunner", file: "anthropic", agent: "toolRunner", sets: [".", "newest"] },
  { name: "fetch", file: "plain-fetch", agent: "agent", sets: ["."] },
  {
    ...{ name: "openai-python", file: "openai-python", agent: "agent" },
    ...{ sets: ["."], apart: true },
  },
];

/** The sets that this Node takes. */
export const runnable = (Object.keys(nodeOf) as Set[]).filter(
  (set) => Number(process.versions.node.split(".")[0]) >= nodeOf[set],
);

export const entriesOf = (set: Set): Entry[] =>
  entries.filter(({ sets = [set] }) => sets.includes(set));

/** The agent as it is with the packages of a set. */
export async function load(entry: Entry, set: Set): Promise<Agent> {
  const query = set === "." ? "" : `?set=${set}`;
  const path = `${import.meta.dirname}/agents/${entry.file}.ts${query}`;
  const module = (await import(path)) as Record<string, Agent>;
  const agent = module[entry.agent];
  if (!agent) throw new Error(`${entry.file}.ts has no agent ${entry.agent}`);
  return agent;
}
