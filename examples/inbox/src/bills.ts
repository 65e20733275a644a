// Mails about bills. Each holds two amounts and two dates, and only one of each is asked for. Where the wanted date
// always came last, a model would learn "the last date" and look as if it could read: so wanted first and wanted last
// are equally frequent, for amounts and for dates. Where mails came in a few wordings, it would learn those: so
// training mails are composed of sentences, and hardly two read the same.
import * as sentences from "./sentences.ts";

export interface Bill {
  name: string;
  amount: number;
  due: string;
}

export interface Mail {
  /** The order in which it tells its facts. */
  order: string;
  text: string;
  bill: Bill;
}

type Words = readonly string[];
type Fact = "name" | "amount" | "due" | "other" | "issued";

/** Words that no training mail has, balanced in the same way. */
export const heldOutTemplates = [
  "Please pay {amount} by {due} to {name}. We had {other} from you on {issued}.",
  "{name} reminds you: until {due} there is {amount} to pay. Your payment of {issued} was {other}.",
  "The bill of {issued} comes to {amount} and is payable by {due}. {name} thanks you for the last {other}.",
  "{name} wants {amount} this time, not {other}. The bill is from {issued} and the last day to pay is {due}.",
  "Your fee went from {other} to {amount}, says {name}. Pay it by {due}; the change came on {issued}.",
  "Until {due} you can pay {name}: the old sum was {other}, the new one is {amount}. Sent on {issued}.",
  "{name} wrote on {issued} about {other}. What you pay by {due} is {amount}.",
  "Not {other} but {amount} is the total of the bill of {issued}. {name} expects it by {due}.",
] as const;

export const heldOutNames =
  "Northgate Water, Tulip Flowers, Granite Roofing, Falcon Courier, Sunrise Daycare, Copper Kettle Cafe, Beacon Heating, Orchid Spa, Delta Printing, Hilltop Vet, Nimbus Hosting, Redwood Carpentry".split(
    ", ",
  );

/** So many mails of each template. The same arguments give the same mails. */
export function writeMails(templates: Words, names: Words, each: number, seed: number): Mail[] {
  const random = draws(seed);
  return templates.flatMap((template) =>
    Array.from({ length: each }, () => fill(template, names, random)),
  );
}

/** Training mails. Of each four, one has each combination of the wanted amount and the wanted date first. */
export function composeMails(count: number, seed: number): Mail[] {
  const random = draws(seed);
  return Array.from({ length: count }, (_, number) => {
    const template = compose(number % 2 === 0, number % 4 < 2, random);
    return fill(template, sentences.trainNames, random);
  });
}

function compose(amountFirst: boolean, dueFirst: boolean, random: Draws): string {
  const { now, before, amounts, dates, opening, closing, greeting, currencies, chatter, breaks } =
    sentences;
  const ordered = (list: Words, one: Fact, other: Fact, first: boolean) =>
    random.of(list.filter((text) => comesBefore(one, other, text) === first));
  const date = ordered(dates, "due", "issued", dueFirst);
  const sum = ordered(amounts, "amount", "other", amountFirst);
  const coin = () => random.below(2) === 0;
  let said = coin() ? [date, sum] : [sum, date];
  // What is to be paid in one sentence, and what was before in the other: both wanted ones come first, or both last.
  if (amountFirst === dueFirst && coin()) {
    said = [random.of(amountFirst ? now : before), random.of(amountFirst ? before : now)];
  }
  const signed = coin();
  // Half of the mails are short, as a reminder on a phone is.
  const long = coin();
  const talk = () => (long && coin() ? [random.of(chatter)] : []);
  const body = [...talk(), ...said.slice(0, 1), ...talk(), ...said.slice(1), ...talk()].join(" ");
  const [currency, hello] = [random.of(currencies), random.of(greeting)];
  const parts = signed ? [hello, body, random.of(closing)] : [hello, random.of(opening), body];
  return parts
    .filter(Boolean)
    .join(random.of(breaks))
    .replace(/\{amount\}|\{other\}/g, (fact) => currency.replace("#", () => fact));
}

function fill(template: string, names: Words, { below, of }: Draws): Mail {
  const amount = (1000 + below(29_000)) / 100;
  let other = amount;
  while (other === amount) other = (1000 + below(29_000)) / 100;
  const issued = below(365);
  const name = of(names);
  const due = dayAndMonth(issued + 7 + below(40));
  const said = { amount: amount.toFixed(2), other: other.toFixed(2), issued: dayAndMonth(issued) };
  const facts: Record<Fact, string> = { name, due, ...said };
  const text = template.replace(/\{(\w+)\}/g, (_, fact: string) => facts[fact as Fact]);
  return { order: orderOf(template).join(" "), text, bill: { name, amount, due } };
}

/** The facts of a template, in the order in which it tells them. */
function orderOf(template: string): Fact[] {
  return [...template.matchAll(/\{(\w+)\}/g)].map(([, fact]) => fact as Fact);
}

export function comesBefore(one: Fact, other: Fact, template: string): boolean {
  return orderOf(template).indexOf(one) < orderOf(template).indexOf(other);
}

function dayAndMonth(day: number): string {
  const date = new Date(Date.UTC(2026, 0, 1 + day));
  return date.toLocaleString("en-GB", { day: "numeric", month: "long", timeZone: "UTC" });
}

type Draws = ReturnType<typeof draws>;

/** Mulberry32: small, and the same on every machine. */
function draws(seed: number) {
  let state = seed >>> 0;
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * limit);
  };
  return { below, of: <T>(list: readonly T[]): T => list[below(list.length)] as T };
}
