// tsx --conditions=@hone/source examples/email-agent/src/write-plays.ts FILE [COUNT]: conversations in all styles, one
// a line, which scripts/make-base/make_email.py trains the base on. Their inboxes are no run's.
import { createWriteStream } from "node:fs";
import { makeInbox } from "./corpus.ts";
import { Mailbox } from "./mailbox.ts";
import { pick, uniforms } from "./random.ts";
import { play, someStyle } from "./styles.ts";

const [file, count = "24000"] = process.argv.slice(2);
if (file === undefined) throw new Error("Give a file to write to.");
const out = createWriteStream(file);
const random = uniforms(7);
const inboxes = Array.from({ length: 80 }, (_, at) => {
  const inbox = makeInbox(at, 2);
  return { inbox, mailbox: new Mailbox(inbox.mails) };
});
for (let at = 0; at < Number(count); at += 1) {
  const one = pick(random, inboxes);
  const question = pick(random, one.inbox.questions);
  const { messages, tools } = play(someStyle(random), { ...one, question });
  out.write(`${JSON.stringify({ messages, tools })}\n`);
}
out.end();
