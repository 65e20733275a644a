// The mailbox of one person as an MCP server over stdio: npm run mcp-server -- 7
import { Server } from "@modelcontextprotocol/server";
import { StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { makeInbox } from "./corpus.ts";
import { Mailbox } from "./mailbox.ts";
import { callTool, tools } from "./tools.ts";

const number = Number(process.argv[2]);
if (!Number.isInteger(number) || number < 0) {
  console.error("Name the number of an inbox, such as: npm run mcp-server -- 7");
  process.exit(1);
}
const { owner, today, mails } = makeInbox(number);
const mailbox = new Mailbox(mails);

// #region server
const server = new Server(
  { name: "mailbox", version: "1.0.0" },
  { capabilities: { tools: {} }, instructions: `The mails of ${owner}. Today is ${today}.` },
);
server.setRequestHandler("tools/list", () => ({
  tools: tools.map(({ function: { name, description, parameters } }) => ({
    ...{ name, description: description ?? "" },
    inputSchema: { ...parameters, type: "object" as const },
  })),
}));
server.setRequestHandler("tools/call", ({ params }) => {
  const outcome = callTool(mailbox, params.name, JSON.stringify(params.arguments ?? {}));
  const text = outcome.kind === "answer" ? "The task is over." : outcome.text;
  const isError = outcome.kind === "bad_tool" || outcome.kind === "bad_arguments";
  // What a program needs to know of the call, beside what the model reads.
  const structuredContent = { ...outcome };
  return { content: [{ type: "text", text }], structuredContent, isError };
});
await server.connect(new StdioServerTransport());
// #endregion
