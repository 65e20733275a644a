import type { Mail } from "./mailbox.ts";
import { chance, pick, shuffled, uniforms } from "./random.ts";

/** One question about one inbox: plain data, so that it can be a scenario. */
export interface Question {
  inbox: number;
  question: string;
  answer: string;
  /** The mail that says it last. */
  source: string;
  /** Whether an earlier mail says something else. */
  kind: "told once" | "changed";
}

export interface Inbox {
  owner: string;
  today: string;
  mails: Mail[];
  questions: Question[];
}

const projects = (
  "Falcon Harbor Juniper Lantern Meadow Nimbus Orchid Pioneer Quartz Raven Saffron Tundra Umbra Velvet Willow Zephyr " +
  "Amber Beacon Cedar Delta Ember Fjord Glacier Hazel"
).split(" ");
const people = "ann bob cleo dan eve finn gus hana ivo jill kai lena milo nora otto pia".split(" ");
const values: Record<string, readonly string[]> = {
  room: "A B C D"
    .split(" ")
    .flatMap((wing) => [1, 2, 3, 4, 5, 6].map((number) => `${wing}${number}`)),
  budget: Array.from({ length: 30 }, (_, i) => `${110 + i * 10}`),
  day: "Monday Tuesday Wednesday Thursday Friday".split(" "),
  time: Array.from(
    { length: 18 },
    (_, i) => `${String(8 + (i >> 1)).padStart(2, "0")}${i % 2 ? "30" : "00"}`,
  ),
  owner: "Ann Bob Cleo Dan Eve Finn Gus Hana Ivo Jill Kai Lena".split(" "),
};
const openings = ["It is settled", "Please note", "As agreed", "For your plans"];
const draftOpenings = ["Draft, please check", "Probably", "Not final yet"];
const thanks = ["Thanks, noted.", "Fine with me.", "Good, I tell the others."];
const chatter = [
  "The kitchen is closed today.",
  "Who has the projector?",
  "Lunch is at noon as always.",
  "The minutes are on the shelf.",
  "My train is late.",
];
const projectsOfInbox = 12;
const mailsOfInbox = 240;
const days = 80;

/** Inboxes with threads, drafts, changed plans and chatter. The same seed gives the same mails on every machine. */
export function makeInbox(inbox: number, seed = 1): Inbox {
  const random = uniforms(seed * 100_003 + inbox);
  const owner = address(people[inbox % people.length]!);
  const drafts: Omit<Mail, "id">[] = [];
  const told: (Omit<Question, "source" | "inbox"> & { mail: Omit<Mail, "id"> })[] = [];
  const write = (day: number, subject: string, body: string): Omit<Mail, "id"> => {
    const [from, other] = shuffled(random, people).map(address);
    const cc = chance(random, 0.3) ? [other!] : [];
    const mail = { date: dateOf(day), subject, from: from!, to: [owner], cc, bcc: [], body };
    drafts.push(mail);
    return mail;
  };
  for (const project of shuffled(random, projects).slice(0, projectsOfInbox)) {
    for (const [attribute, possible] of Object.entries(values)) {
      const subject = `${project} ${attribute}`;
      const [first, last] = shuffled(random, possible);
      const changed = chance(random, 0.6);
      const day = Math.floor(random() * (days - 30));
      if (chance(random, 0.3)) write(day, subject, `${pick(random, draftOpenings)}: ${first!}`);
      let mail = write(day + 4, subject, `${pick(random, openings)}: ${first!}`);
      if (chance(random, 0.5)) write(day + 6, `Re: ${subject}`, pick(random, thanks));
      if (changed) mail = write(day + 15, subject, `Changed: ${last!}`);
      if (chance(random, 0.15)) write(day + 20, `Re: ${subject}`, pick(random, thanks));
      told.push({
        question: `What is the ${attribute} of ${project}?`,
        answer: changed ? last! : first!,
        kind: changed ? "changed" : "told once",
        mail,
      });
    }
  }
  while (drafts.length < mailsOfInbox) {
    const about = chance(random, 0.5) ? pick(random, projects) : pick(random, Object.keys(values));
    write(Math.floor(random() * days), `About ${about}`, pick(random, chatter));
  }
  const ids = shuffled(
    random,
    drafts.map((_, at) => `m${at + 1}`),
  );
  const mails = drafts.map((mail, at) => ({ id: ids[at]!, ...mail }));
  const idOf = new Map(drafts.map((mail, at) => [mail, ids[at]!]));
  const questions = told.map(({ mail, ...rest }) => ({ inbox, ...rest, source: idOf.get(mail)! }));
  return { owner, today: dateOf(days), mails, questions };
}

function address(name: string): string {
  return `${name}@acme.example`;
}

function dateOf(day: number): string {
  return new Date(Date.UTC(2026, 0, 5 + day)).toISOString().slice(0, 10);
}
