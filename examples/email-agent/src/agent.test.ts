import type { RolloutModel } from "@hone/client";
import type OpenAI from "openai";
import { describe, expect, it, onTestFinished } from "vitest";
import { answerFromMails } from "./agent.ts";
import { makeInbox } from "./corpus.ts";
import { goldReward } from "./gold.ts";
import { Mailbox } from "./mailbox.ts";
import { openMcpMailbox, type McpMailbox } from "./mcp-mailbox.ts";

type Request = { messages: OpenAI.ChatCompletionMessageParam[]; tools: unknown[] };
type Call = [name: string, args: unknown];

const inbox = makeInbox(7);
const mailbox = new Mailbox(inbox.mails);
const question = inbox.questions[0]!;

/** A model behind openai-node that makes these calls, one list of them a turn; an empty list is plain text. */
async function episodeOf(
  turns: readonly Call[][],
  mostTurns = 6,
  where: Mailbox | McpMailbox = mailbox,
) {
  const requests: Request[] = [];
  const fetch = async (_url: unknown, init?: { body?: unknown }) => {
    requests.push(JSON.parse(String(init?.body)) as Request);
    const calls = turns[requests.length - 1] ?? [];
    const tool_calls = calls.map(([name, args], at) => ({
      ...{ id: `call_${requests.length}_${at}`, type: "function" },
      function: { name, arguments: JSON.stringify(args) },
    }));
    const message = { role: "assistant", content: calls.length > 0 ? null : "Hm.", tool_calls };
    const usage = { prompt_tokens: 1, completion_tokens: 10, total_tokens: 11 };
    return Response.json({ choices: [{ index: 0, message, finish_reason: "stop" }], usage });
  };
  const connection = () => ({ baseURL: "http://model.test/v1", apiKey: "k", model: "m", fetch });
  const model = { connection, signal: AbortSignal.timeout(60_000) } as unknown as RolloutModel;
  const how = { mostTurns, temperature: 1, answerTokens: 40 };
  const asked = { inbox, mailbox: where, question };
  return { episode: await answerFromMails(model, asked, how), requests };
}

const search: Call = ["search_emails", { keywords: ["Falcon"] }];
const { source, answer } = question;

describe("the agent", () => {
  it("searches, reads and answers, and sees what each tool gave", async () => {
    const [, attribute, project] = /the (\w+) of (\w+)\?/.exec(question.question) ?? [];
    const { episode, requests } = await episodeOf([
      [["search_emails", { keywords: [project, attribute] }]],
      [["read_email", { message_id: source }]],
      [["return_final_answer", { answer, sources: [source] }]],
    ]);
    expect(episode).toMatchObject({
      answer,
      sources: [source],
      turns: 3,
      failure: null,
      tokens: 30,
    });
    expect(episode.found.has(source) && episode.read.has(source)).toBe(true);
    expect(goldReward(question, episode)).toBeCloseTo(1.45);
    const [system, user] = requests[0]?.messages ?? [];
    expect(system?.content).toContain(inbox.owner);
    expect(user?.content).toBe(question.question);
    expect(requests[0]?.tools).toHaveLength(3);
    expect(requests[2]?.messages.at(-1)?.content).toContain(`"id":"${source}"`);
  });

  it("makes the first of several calls, and answers each", async () => {
    const read: Call = ["read_email", { message_id: source }];
    const { episode, requests } = await episodeOf([[search, read], []]);
    expect(episode.read.size).toBe(0);
    const results = requests[1]?.messages.slice(-2) ?? [];
    expect(results.map((one) => one.role === "tool" && one.tool_call_id)).toEqual([
      ...["call_1_0", "call_1_1"],
    ]);
    expect(results[1]?.content).toContain("One call a turn");
    expect(episode.failure).toBe("unparseable");
  });

  it("ends at a bad call and when the turns are over, and counts reads of nothing", async () => {
    expect((await episodeOf([[["delete_all", {}]]])).episode.failure).toBe("bad_tool");
    expect((await episodeOf([[["read_email", {}]]])).episode.failure).toBe("bad_arguments");
    const missing: Call = ["read_email", { message_id: "m0" }];
    const { episode } = await episodeOf([[search], [missing], [search], [search]], 3);
    expect(episode).toMatchObject({ answer: null, failure: null, turns: 3, invalidReads: 1 });
  });

  it("plays the same over the mailbox's MCP server, to the byte of each request", async () => {
    const over = await openMcpMailbox(7);
    onTestFinished(() => over.close());
    const turns: Call[][] = [
      [search],
      [["read_email", { message_id: "m0" }]],
      [["read_email", { message_id: source }]],
      [["return_final_answer", { answer, sources: [source] }]],
    ];
    const [as, by] = [await episodeOf(turns), await episodeOf(turns, 6, over)];
    expect(by).toEqual(as);
    expect(by.episode).toMatchObject({ answer, invalidReads: 1, turns: 4 });
    const bad: Call[][] = [[["read_email", { id: 1 }]]];
    expect((await episodeOf(bad, 6, over)).episode.failure).toBe("bad_arguments");
  });
});
