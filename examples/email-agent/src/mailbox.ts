import Database from "libsql";

export interface Mail {
  id: string;
  /** ISO day or time; compared as text. */
  date: string;
  subject: string;
  from: string;
  to: readonly string[];
  cc: readonly string[];
  bcc: readonly string[];
  body: string;
}

export interface Search {
  /** All of them have to occur, in subject or body, whole words in any case. */
  keywords: readonly string[];
  from?: string | undefined;
  to?: string | undefined;
  /** The first day that counts. */
  sentAfter?: string | undefined;
  /** The first day that no longer counts. */
  sentBefore?: string | undefined;
  /** 1 to 10. @default 10 */
  limit?: number | undefined;
}

export interface Hit {
  id: string;
  /** At most 15 words around what was found. */
  snippet: string;
}

/** As in ART-E: longer mails and those to more people are left out, and of equal ones the first stays. */
const longestBody = 5000;
const mostRecipients = 30;

/** One person's mails in SQLite, with FTS5 over subject and body. In memory: it is made again in milliseconds. */
export class Mailbox {
  readonly #db = new Database(":memory:");

  constructor(mails: readonly Mail[]) {
    this.#db.exec(`
      CREATE TABLE mails (key INTEGER PRIMARY KEY, id TEXT UNIQUE, date TEXT, subject TEXT, sender TEXT, body TEXT);
      CREATE TABLE recipients (mail INTEGER, kind TEXT, address TEXT);
      CREATE INDEX recipients_of ON recipients (mail);
      CREATE VIRTUAL TABLE words USING fts5 (subject, body, content='mails', content_rowid='key');
    `);
    const mail = this.#db.prepare("INSERT INTO mails VALUES (?, ?, ?, ?, ?, ?)");
    const word = this.#db.prepare("INSERT INTO words (rowid, subject, body) VALUES (?, ?, ?)");
    const recipient = this.#db.prepare("INSERT INTO recipients VALUES (?, ?, ?)");
    this.#db.transaction(() => {
      for (const [key, one] of kept(mails).entries()) {
        mail.run(key, one.id, one.date, one.subject, one.from, one.body);
        word.run(key, one.subject, one.body);
        for (const kind of ["to", "cc", "bcc"] as const) {
          for (const address of one[kind]) recipient.run(key, kind, address);
        }
      }
    })();
  }

  /** Newest first. */
  search({ keywords, from, to, sentAfter, sentBefore, limit = 10 }: Search): Hit[] {
    // Quoted: what a word spells is never FTS5's own syntax.
    const match = keywords.map((word) => `"${word.replaceAll('"', '""')}"`).join(" ");
    const conditions = [
      ["words MATCH ?", match],
      ["sender = ?", from],
      ["EXISTS (SELECT 1 FROM recipients WHERE mail = key AND address = ?)", to],
      ["date >= ?", sentAfter],
      ["date < ?", sentBefore],
    ].filter((condition): condition is [string, string] => condition[1] !== undefined);
    const rows = this.#db
      .prepare(
        `SELECT id, snippet(words, -1, '', '', '…', 15) AS snippet FROM words JOIN mails ON key = words.rowid
         WHERE ${conditions.map(([sql]) => sql).join(" AND ")} ORDER BY date DESC, key DESC LIMIT ?`,
      )
      .all(...conditions.map(([, value]) => value), limit);
    return rows as Hit[];
  }

  /** Null where there is no such mail. */
  read(id: string): Mail | null {
    const row = this.#db.prepare("SELECT * FROM mails WHERE id = ?").get(id);
    if (row === undefined) return null;
    const { key, date, subject, sender: from, body } = row as Record<string, string>;
    // By the mail's key: ART-E asks with the message's id here, and its recipients are always empty.
    const recipients = this.#db
      .prepare("SELECT kind, address FROM recipients WHERE mail = ? ORDER BY rowid")
      .all(key) as { kind: string; address: string }[];
    const of = (kind: string) =>
      recipients.flatMap((one) => (one.kind === kind ? [one.address] : []));
    return {
      ...{ id, date: date!, subject: subject!, from: from!, body: body! },
      ...{ to: of("to"), cc: of("cc"), bcc: of("bcc") },
    };
  }
}

function kept(mails: readonly Mail[]): Mail[] {
  const seen = new Set<string>();
  return mails.filter((mail) => {
    const same = JSON.stringify([mail.subject, mail.body, mail.from]);
    const recipients = mail.to.length + mail.cc.length + mail.bcc.length;
    if (mail.body.length > longestBody || recipients > mostRecipients || seen.has(same))
      return false;
    seen.add(same);
    return true;
  });
}
