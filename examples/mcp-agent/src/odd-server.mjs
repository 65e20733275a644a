// An MCP server for the tests of this folder, which does what servers should not. Its first argument says how it starts.
import { createInterface } from "node:readline";

const [how, folder] = process.argv.slice(2);
if (how === "fails") {
  console.error("No configuration was found.");
  process.exit(3);
}
if (how === "stubborn") {
  process.on("SIGTERM", () => {});
  setInterval(() => {}, 1000);
}
const send = (message) =>
  process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
const text = (said) => ({ content: [{ type: "text", text: said }] });
const inputSchema = { type: "object", properties: {} };
const tools = [
  "hang",
  "die",
  "long",
  "where",
  "echo",
  "wrong",
  "picture",
  "structured",
  "fail",
].map((name) => ({ name, inputSchema }));
tools.find(({ name }) => name === "wrong").outputSchema = {
  ...{ type: "object", properties: { n: { type: "number" } }, required: ["n"] },
};
const results = {
  hang: () => undefined,
  die() {
    console.error("Out of luck.");
    process.exit(4);
  },
  long: () => text("0123456789".repeat(1000)),
  where: () => text(JSON.stringify({ cwd: process.cwd(), folder, key: process.env.SECRET_KEY })),
  echo: (args) => text(JSON.stringify({ ...args, is: args.path?.startsWith(folder) })),
  wrong: () => ({ ...text("one"), structuredContent: { n: "one" } }),
  picture: () => ({ content: [{ type: "image", mimeType: "image/png", data: "AAAA" }] }),
  structured: () => ({ content: [], structuredContent: { n: 1 } }),
  fail: () => ({ ...text("There is no such thing."), isError: true }),
};
createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined || how === "silent") return;
  if (method === "initialize") {
    const { protocolVersion } = params;
    const serverInfo = { name: "odd", version: "1" };
    const instructions = `All is in ${folder}.`;
    send({
      id,
      result: { protocolVersion, capabilities: { tools: {} }, serverInfo, instructions },
    });
  } else if (method === "tools/list") send({ id, result: { tools } });
  else if (method === "tools/call") {
    const result = results[params.name](params.arguments);
    if (result) send({ id, result });
  } else send({ id, error: { code: -32601, message: "No such method." } });
});
