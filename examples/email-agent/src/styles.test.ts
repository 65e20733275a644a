import { describe, expect, it } from "vitest";
import { makeInbox } from "./corpus.ts";
import { Mailbox } from "./mailbox.ts";
import { demonstrations, expert, play, type Style } from "./styles.ts";

const inbox = makeInbox(7);
const mailbox = new Mailbox(inbox.mails);

function share(style: Style): number {
  const right = inbox.questions.filter((question) => {
    const last = play(style, { inbox, mailbox, question }).messages.at(-1);
    const call = last?.role === "assistant" ? last.tool_calls?.[0] : undefined;
    const given = call?.type === "function" ? JSON.parse(call.function.arguments) : {};
    return given.answer === question.answer && given.sources[0] === question.source;
  });
  return right.length / inbox.questions.length;
}

describe("scripted players", () => {
  it("find nearly every answer by the expert's way, and few by others", () => {
    expect(share(expert)).toBeGreaterThan(0.9);
    expect(share({ ...expert, keywords: "project" })).toBeLessThan(0.3);
    expect(share({ ...expert, keywords: "attribute" })).toBeLessThan(0.3);
    expect(share({ ...expert, reads: "oldest" })).toBeLessThan(0.6);
    expect(share({ ...expert, reads: "none" })).toBe(0);
  });

  it("show each question once, with the right answer as the last call", () => {
    const shown = demonstrations(60, [{ inbox, mailbox }], 6);
    const asked = shown.map(({ messages }) => messages[1]?.content);
    expect(asked).toEqual(inbox.questions.map(({ question }) => question));
    const last = shown.map(({ messages }) => JSON.stringify(messages.at(-1)));
    const right = inbox.questions.filter(({ answer }, at) => last[at]?.includes(answer));
    expect(right.length).toBeGreaterThan(54);
    expect(shown[0]?.tools).toHaveLength(3);
  });
});
