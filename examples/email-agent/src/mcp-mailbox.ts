import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import type OpenAI from "openai";
import { z } from "zod";
import type { Outcome } from "./tools.ts";

const outcomeSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("found"), ids: z.array(z.string()), text: z.string() }),
  z.object({ kind: z.literal("read"), id: z.string(), found: z.boolean(), text: z.string() }),
  z.object({ kind: z.literal("answer"), answer: z.string(), sources: z.array(z.string()) }),
  z.object({ kind: z.literal("bad_tool"), text: z.string() }),
  z.object({ kind: z.literal("bad_arguments"), text: z.string() }),
]);

/** A mailbox behind the MCP server of this folder. Nothing that is asked changes it: all rollouts may share one. */
export interface McpMailbox {
  tools: OpenAI.ChatCompletionFunctionTool[];
  /** As `callTool`. Throws if the server is gone or the signal aborts. */
  call(name: string, given: string, signal: AbortSignal): Promise<Outcome>;
  close(): Promise<void>;
}

const idleMs = 5000;
const shared = new Map<number, { users: number; opening: Promise<McpMailbox> }>();

/** Lends an inbox's server, which all users share. It ends 5 s after its last user. */
export async function withMcpMailbox<Result>(
  inbox: number,
  use: (mailbox: McpMailbox) => Promise<Result>,
): Promise<Result> {
  const one = shared.get(inbox) ?? { users: 0, opening: openMcpMailbox(inbox) };
  shared.set(inbox, one);
  one.users += 1;
  try {
    return await use(await one.opening);
  } catch (error) {
    // It may be the server that failed: who comes next gets another one.
    if (shared.get(inbox) === one) shared.delete(inbox);
    throw error;
  } finally {
    one.users -= 1;
    setTimeout(() => {
      if (one.users > 0) return;
      if (shared.get(inbox) === one) shared.delete(inbox);
      one.opening.then((mailbox) => mailbox.close()).catch(() => {});
    }, idleMs);
  }
}

export async function openMcpMailbox(inbox: number): Promise<McpMailbox> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const program = fileURLToPath(new URL("mcp-server.ts", import.meta.url));
  const client = new Client({ name: "email-agent", version: "1.0.0" });
  const start = { command: process.execPath, args: ["--import", tsx, program, String(inbox)] };
  let tools: McpMailbox["tools"];
  try {
    await client.connect(new StdioClientTransport(start));
    tools = (await client.listTools()).tools.map(({ name, description = "", inputSchema }) => ({
      type: "function",
      function: { name, description, parameters: inputSchema },
    }));
  } catch (error) {
    await client.close();
    throw error;
  }
  return {
    tools,
    async call(name, given, signal) {
      let args: unknown;
      try {
        args = JSON.parse(given);
      } catch {
        // MCP has no words for it: what is no JSON cannot be sent.
      }
      if (typeof args !== "object" || args === null || Array.isArray(args)) {
        return { kind: "bad_arguments", text: '{"error":"The arguments are no JSON object."}' };
      }
      const call = { name, arguments: args as Record<string, unknown> };
      const { structuredContent } = await client.callTool(call, { signal });
      return outcomeSchema.parse(structuredContent);
    },
    close: () => client.close(),
  };
}
