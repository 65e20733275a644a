import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { makeInbox } from "./corpus.ts";
import task from "./task.ts";

const inboxes = Array.from({ length: 10 }, (_, at) => makeInbox(at));

describe("the corpus", () => {
  it("has its size, and is the same on every machine", () => {
    expect(inboxes.flatMap(({ mails }) => mails).length).toBeGreaterThanOrEqual(2000);
    expect(inboxes.flatMap(({ questions }) => questions).length).toBeGreaterThanOrEqual(400);
    const hash = createHash("sha256").update(JSON.stringify(inboxes)).digest("hex");
    expect(hash.slice(0, 16)).toBe("8406c15fc1663eed");
  });

  it("has an answer in the source of each question, and no later mail says another", () => {
    for (const { mails, questions } of inboxes) {
      for (const { question, answer, source, kind } of questions) {
        const [, attribute, project] = /the (\w+) of (\w+)\?/.exec(question) ?? [];
        const thread = mails.filter(({ subject }) => subject === `${project} ${attribute}`);
        const last = thread.toSorted((a, b) => a.date.localeCompare(b.date)).at(-1);
        expect(last?.id).toBe(source);
        expect(last?.body.endsWith(`: ${answer}`)).toBe(true);
        const others = new Set(thread.map(({ body }) => body.split(": ")[1]));
        expect(others.size).toBe(kind === "changed" ? 2 : 1);
      }
    }
  });

  it("has replies, drafts and chatter beside them", () => {
    const mails = inboxes.flatMap((inbox) => inbox.mails);
    const count = (matches: RegExp) => mails.filter(({ subject }) => matches.test(subject)).length;
    expect(count(/^Re: /)).toBeGreaterThan(200);
    expect(count(/^About /)).toBeGreaterThan(100);
    expect(
      mails.filter(({ body }) => /^(Draft|Probably|Not final)/.test(body)).length,
    ).toBeGreaterThan(100);
  });

  it("keeps the inboxes of training and of judging apart", () => {
    const trained = new Set(task.train.map(({ inbox }) => inbox));
    expect(task.heldOut.some(({ inbox }) => trained.has(inbox))).toBe(false);
  });
});
