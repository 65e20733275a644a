import { rmSync } from "node:fs";
import { mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, type CallToolResult, type Tool } from "@modelcontextprotocol/client";
import { getDefaultEnvironment, StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { HoneError } from "@hone/core";
import { errorText, resultText } from "./result-text.ts";

/** An MCP server over stdio, and what it finds when it starts. */
export interface McpServer {
  name: string;
  /**
   * How to start it in a folder of its own, which is its working directory too. Start the server's own program: a
   * launcher such as npx stands between Hone and the process that has to end.
   */
  start(folder: string): { command: string; args: string[]; env?: Record<string, string> };
  /** Writes what the server is to find in its folder. */
  prepare?: ((folder: string) => Promise<void>) | undefined;
  /** Which tools the agent gets. @default all */
  only?: readonly string[] | undefined;
  /** Whether rollouts may share one process, because nothing that the agent can do changes anything. @default false */
  shared?: boolean | undefined;
  /** Values that scenarios use for a parameter of this name. */
  words?: Readonly<Record<string, readonly unknown[]>> | undefined;
}

export interface RunningServer {
  tools: Tool[];
  /** What the server says of itself to agents, if it does. */
  instructions: string;
  pid: number;
  /**
   * Calls a tool. What the tool finds wrong, a call that takes too long and a result that breaks the tool's own schema
   * are results too. It throws only if the server is gone or the signal aborts.
   */
  call(name: string, args: Record<string, unknown>): Promise<{ text: string; failed: boolean }>;
}

export interface ServerLimits {
  /** Of starting, and of each call. @default 30_000 */
  timeoutMs?: number | undefined;
  /** How many characters of a result the agent sees. @default 4000 */
  resultCharacters?: number | undefined;
}

/** The name by which agents know the server's folder. Its real one differs in each rollout, and would differ in their prompts. */
const shownFolder = "/sandbox";

/** What is left where a process is ended before its rollouts have. The servers end by themselves: their input closes. */
const folders = new Set<string>();
process.on("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

// #region with
/** Starts the server in an empty folder, lets it be used, and ends it whatever happens. */
export async function withServer<Result>(
  server: McpServer,
  signal: AbortSignal,
  use: (running: RunningServer) => Promise<Result>,
  limits: ServerLimits = {},
): Promise<Result> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), `mcp-${server.name}-`)));
  folders.add(folder);
  const client = new Client({ name: "hone-mcp-agent", version: "1.0.0" });
  try {
    await server.prepare?.(folder);
    return await use(await connect(server, client, folder, signal, limits));
  } finally {
    // Closes its input, and ends it by force if it does not go.
    await client.close();
    await rm(folder, { recursive: true, force: true });
    folders.delete(folder);
  }
}
// #endregion

async function connect(
  server: McpServer,
  client: Client,
  folder: string,
  signal: AbortSignal,
  { timeoutMs = 30_000, resultCharacters = 4000 }: ServerLimits,
): Promise<RunningServer> {
  signal.throwIfAborted();
  const { env, ...program } = server.start(folder);
  const transport = new StdioClientTransport({
    ...{ ...program, cwd: folder, stderr: "pipe" },
    // Without what else this process has in its environment, such as keys.
    env: { ...getDefaultEnvironment(), ...env },
  });
  let said = "";
  transport.stderr?.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2000);
  });
  const gone = (what: string, cause: unknown) => {
    signal.throwIfAborted();
    const started = [program.command, ...program.args].join(" ");
    return new HoneError(
      `The MCP server ${server.name} ${what}. It was started by: ${started}. Its last words: ${said.trim() || "none"}`,
      { code: "invalid_config", cause },
    );
  };
  const within = { signal, timeout: timeoutMs };
  let tools: Tool[];
  try {
    await client.connect(transport, within);
    ({ tools } = await client.listTools(undefined, within));
  } catch (cause) {
    throw gone("does not start", cause);
  }
  const pid = transport.pid ?? -1;
  const asked = new Set(server.only ?? tools.map(({ name }) => name));
  const missing = [...asked].filter((name) => !tools.some((tool) => tool.name === name));
  if (missing.length > 0) {
    const known = tools.map(({ name }) => name).join(", ");
    throw new HoneError(
      `The MCP server ${server.name} has no tool ${missing.join(", ")}. Name in "only" some of: ${known}.`,
      { code: "invalid_config", param: "only" },
    );
  }
  const shown = (text: string) => text.replaceAll(folder, shownFolder);
  return {
    tools: tools.filter(({ name }) => asked.has(name)),
    instructions: shown(client.getInstructions() ?? ""),
    pid,
    async call(name, args) {
      if (!asked.has(name)) return { text: errorText(`There is no tool ${name}.`), failed: true };
      let result: CallToolResult;
      try {
        const real = withFolder(args, folder) as Record<string, unknown>;
        result = await client.callTool({ name, arguments: real }, within);
      } catch (cause) {
        signal.throwIfAborted();
        // The transport forgets its process when that ends.
        if (transport.pid === null) throw gone(`ended while it ran ${name}`, cause);
        return { text: errorText(shown((cause as Error).message)), failed: true };
      }
      return { text: resultText(result, resultCharacters, shown), failed: result.isError === true };
    },
  };
}

/** The arguments as the server knows them: with its real folder. */
function withFolder(value: unknown, folder: string): unknown {
  if (typeof value === "string") return value.replaceAll(shownFolder, folder);
  if (Array.isArray(value)) return value.map((one) => withFolder(one, folder));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, withFolder(one, folder)]),
  );
}
