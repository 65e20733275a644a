import { describe, expect, it } from "vitest";
import { Mailbox, type Mail } from "./mailbox.ts";

const mail = (id: string, rest: Partial<Mail> = {}): Mail => ({
  ...{ id, date: "2026-01-05", subject: `About ${id}`, from: "ann@x", to: ["bob@x"] },
  ...{ cc: [], bcc: [], body: "The offer is here." },
  ...rest,
});
const ids = (hits: { id: string }[]) => hits.map(({ id }) => id);

describe("a mailbox", () => {
  it("finds mails that hold all words, newest first", () => {
    const mailbox = new Mailbox([
      mail("a", { subject: "Falcon budget", date: "2026-01-05" }),
      mail("b", { subject: "Falcon room", date: "2026-01-09" }),
      mail("c", { subject: "Plans", body: "The budget of falcon.", date: "2026-01-07" }),
    ]);
    expect(ids(mailbox.search({ keywords: ["falcon", "budget"] }))).toEqual(["c", "a"]);
    expect(ids(mailbox.search({ keywords: ["falcon"], limit: 1 }))).toEqual(["b"]);
  });

  it("narrows by sender, any recipient, and days: the first counts, the last does not", () => {
    const mailbox = new Mailbox([
      mail("a", { date: "2026-01-05" }),
      mail("b", { date: "2026-01-06", from: "eve@x" }),
      mail("c", { date: "2026-01-07", cc: ["dan@x"] }),
    ]);
    const keywords = ["offer"];
    expect(ids(mailbox.search({ keywords, from: "eve@x" }))).toEqual(["b"]);
    expect(ids(mailbox.search({ keywords, to: "dan@x" }))).toEqual(["c"]);
    const days = { sentAfter: "2026-01-05", sentBefore: "2026-01-07" };
    expect(ids(mailbox.search({ keywords, ...days }))).toEqual(["b", "a"]);
  });

  it("takes what a word spells as words, never as a query's syntax", () => {
    const mailbox = new Mailbox([mail("a", { body: 'He said "hello" AND left.' })]);
    expect(ids(mailbox.search({ keywords: ['"hello" AND left'] }))).toEqual(["a"]);
    expect(mailbox.search({ keywords: ["hello OR nothing"] })).toEqual([]);
    expect(mailbox.search({ keywords: ["'; DROP TABLE mails"] })).toEqual([]);
  });

  it("reads a mail with its recipients", () => {
    const whole = mail("a", { to: ["bob@x", "cleo@x"], cc: ["dan@x"], bcc: ["eve@x"] });
    const mailbox = new Mailbox([mail("z"), whole]);
    expect(mailbox.read("a")).toEqual(whole);
    expect(mailbox.read("b")).toBeNull();
  });

  it("keeps no mail that is too long, has too many recipients, or came before", () => {
    const mailbox = new Mailbox([
      mail("long", { body: `offer ${"x".repeat(5000)}` }),
      mail("many", { cc: Array.from({ length: 30 }, (_, i) => `p${i}@x`) }),
      mail("one", { subject: "S" }),
      mail("two", { subject: "S" }),
    ]);
    expect(ids(mailbox.search({ keywords: ["offer"] }))).toEqual(["one"]);
  });

  it("cuts a snippet around what was found", () => {
    const body = `${"word ".repeat(50)}treasure ${"word ".repeat(50)}`;
    const [hit] = new Mailbox([mail("a", { body })]).search({ keywords: ["treasure"] });
    expect(hit?.snippet).toContain("treasure");
    expect(hit?.snippet.match(/\w+/g)).toHaveLength(15);
  });
});
