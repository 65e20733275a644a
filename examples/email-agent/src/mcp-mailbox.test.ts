import { setMaxListeners } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeInbox } from "./corpus.ts";
import { Mailbox } from "./mailbox.ts";
import { openMcpMailbox, withMcpMailbox, type McpMailbox } from "./mcp-mailbox.ts";
import { callTool, tools } from "./tools.ts";

const inbox = makeInbox(7);
const mailbox = new Mailbox(inbox.mails);
const { signal } = new AbortController();
// As the signal of a rollout is: each call under way listens to it.
setMaxListeners(0, signal);

describe("the mailbox as an MCP server", () => {
  let over: McpMailbox;
  beforeAll(async () => {
    over = await openMcpMailbox(7);
  });
  afterAll(() => over?.close());

  it("has the same tools, which do the same, good calls and bad ones", async () => {
    expect(over.tools).toEqual(tools);
    const { source, answer, question } = inbox.questions[0]!;
    const [, attribute, project] = /the (\w+) of (\w+)\?/.exec(question) ?? [];
    const calls: [name: string, given: string][] = [
      ["search_emails", JSON.stringify({ keywords: [project, attribute], max_results: 2 })],
      ["search_emails", JSON.stringify({ keywords: [project], from_addr: "nobody@acme.example" })],
      ["search_emails", "{}"],
      ["read_email", JSON.stringify({ message_id: source })],
      ["read_email", JSON.stringify({ message_id: "m0" })],
      ["read_email", "no JSON"],
      ["return_final_answer", JSON.stringify({ answer, sources: [source] })],
      ["delete_all", "{}"],
    ];
    const kinds: string[] = [];
    for (const [name, given] of calls) {
      const outcome = await over.call(name, given, signal);
      if (given !== "no JSON") expect(outcome).toEqual(callTool(mailbox, name, given));
      kinds.push(outcome.kind);
    }
    expect(kinds).toEqual([
      ...["found", "found", "bad_arguments", "read", "read", "bad_arguments", "answer"],
      "bad_tool",
    ]);
  });

  it("answers many rollouts at once, and ends with its client", async () => {
    const reads = inbox.questions.map(({ source }) =>
      over.call("read_email", JSON.stringify({ message_id: source }), signal),
    );
    const outcomes = await Promise.all(reads);
    expect(outcomes.map((one) => one.kind === "read" && one.found && one.id)).toEqual(
      inbox.questions.map(({ source }) => source),
    );
    await over.close();
    await expect(over.call("read_email", '{"message_id":"m1"}', signal)).rejects.toThrow(
      "Not connected",
    );
  });

  it("is lent to many at once, and opened again after one of them failed", async () => {
    const read = (one: McpMailbox) => one.call("read_email", '{"message_id":"m1"}', signal);
    const lent = await Promise.all([1, 2, 3].map(() => withMcpMailbox(7, async (one) => one)));
    expect(new Set(lent).size).toBe(1);
    await lent[0]!.close();
    await expect(withMcpMailbox(7, read)).rejects.toThrow("Not connected");
    expect(await withMcpMailbox(7, read)).toMatchObject({ kind: "read", found: true });
  });
});
