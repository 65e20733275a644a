import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { readMaildir } from "./enron.ts";
import { Mailbox } from "./mailbox.ts";

const sample = (id: string, more = "") =>
  `Message-ID: <${id}.JavaMail.evans@thyme>\r\n` +
  "Date: Mon, 14 May 2001 16:39:00 -0700 (PDT)\r\nFrom: ann.lee@example.com\r\n" +
  "To: bob.ray@example.com, \r\n\tcleo.orr@example.com\r\nSubject: Forecast: May\r\n" +
  `Cc: dan.fox@example.com\r\nX-Folder: \\Ann_Lee\\Sent\r\n\r\nHere is our forecast.\r\n\r\nAnn${more}`;

it("reads a person's folders of the Enron set, each message once", async () => {
  const folder = await mkdtemp(join(tmpdir(), "maildir-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const files = {
    "_sent_mail/1.": sample("1.1"),
    "all_documents/7.": sample("1.1"),
    "inbox/projects/2.": sample("2.2", "\r\n\xa0Lee"),
    "inbox/3.": "no message at all",
    "inbox/.DS_Store": sample("4.4"),
  };
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text, "latin1");
  }
  const mails = await readMaildir(folder);
  expect(mails.map(({ id }) => id)).toEqual([
    "<1.1.JavaMail.evans@thyme>",
    "<2.2.JavaMail.evans@thyme>",
  ]);
  expect(mails[0]).toEqual({
    ...{ id: "<1.1.JavaMail.evans@thyme>", date: "2001-05-14T23:39:00.000Z" },
    ...{ from: "ann.lee@example.com", to: ["bob.ray@example.com", "cleo.orr@example.com"] },
    ...{ cc: ["dan.fox@example.com"], bcc: [], subject: "Forecast: May" },
    body: "Here is our forecast.\n\nAnn",
  });
  const hits = new Mailbox(mails).search({ keywords: ["forecast"], to: "cleo.orr@example.com" });
  expect(hits).toHaveLength(2);
});
