import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Mail } from "./mailbox.ts";

/**
 * One person's mails of the Enron set in its public layout, `maildir/<person>/<folder>/<number>.`, one message a file.
 * Mails that were filed in several folders come once for each `Message-ID`.
 */
export async function readMaildir(person: string): Promise<Mail[]> {
  const files = (await readdir(person, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && /^\d+\.$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted();
  const mails = new Map<string, Mail>();
  for (const file of files) {
    // The set has bytes that are no UTF-8.
    const mail = readMail(await readFile(file, "latin1"));
    if (mail !== null && !mails.has(mail.id)) mails.set(mail.id, mail);
  }
  return [...mails.values()];
}

/** Null where the message has no id, no sender or no date that can be read. */
export function readMail(text: string): Mail | null {
  const [head = "", ...rest] = text.replaceAll("\r\n", "\n").split("\n\n");
  const fields = new Map<string, string>();
  // A line that begins with white space continues the one before.
  for (const line of head.replaceAll(/\n[ \t]+/g, " ").split("\n")) {
    const at = line.indexOf(":");
    const name = line.slice(0, at).toLowerCase();
    if (at > 0 && !fields.has(name)) fields.set(name, line.slice(at + 1).trim());
  }
  const [id, from] = [fields.get("message-id"), fields.get("from")];
  const date = new Date(fields.get("date") ?? "");
  if (!id || !from || Number.isNaN(date.getTime())) return null;
  const list = (name: string) => (fields.get(name) ?? "").split(/,\s*/).filter(Boolean);
  return {
    ...{ id, from, date: date.toISOString(), subject: fields.get("subject") ?? "" },
    ...{ to: list("to"), cc: list("cc"), bcc: list("bcc"), body: rest.join("\n\n").trim() },
  };
}
