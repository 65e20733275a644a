// Mails about bills. Each holds two amounts and two dates, and only one of each is asked for. Where the
// wanted date always came last, a model would learn "the last date" and look as if it could read: so each
// half of the templates has every combination of wanted first and wanted last equally often.

export interface Bill {
  name: string;
  amount: number;
  due: string;
}

export interface Mail {
  /** The template's name: the order of its facts. */
  template: string;
  text: string;
  bill: Bill;
}

/** `{other}` and `{issued}` are the amount and the date that are not asked for. */
export const trainTemplates = takeTurns([
  // The wanted amount first, the wanted date first.
  [
    "{name} asks you to pay {amount} by {due}. Your last bill of {other} came on {issued}.",
    "A bill of {amount} from {name} falls due on {due}; the one before, {other}, was paid on {issued}.",
    "By {due} {name} expects {amount}. On {issued} you paid them {other}.",
    "{name}: please settle by {due} the sum of {amount}, not {other} as we wrote on {issued}.",
  ],
  // The wanted amount first, the wanted date last.
  [
    "{name} sent a bill of {amount} on {issued}. Unlike the {other} of last time, it is due on {due}.",
    "On {issued} {name} billed you {amount}, due {due}. The bill before was {other}.",
    "The total is {amount}, up from {other}. {name} wrote it on {issued} and wants it by {due}.",
    "{name}, {issued}: the amount to pay is {amount} until {due}, after {other} last time.",
  ],
  // The wanted amount last, the wanted date first.
  [
    "{name} corrects the bill: not {other} but {amount}, payable by {due}. The first letter is from {issued}.",
    "Instead of {other}, {name} now charges {amount}. Pay before {due}; this mail was written on {issued}.",
    "Payment is due {due}: after {other} last month it is now {amount}. {name}, {issued}.",
    "{name} needs your payment by {due}. The bill of {issued} showed {other}; the right sum is {amount}.",
  ],
  // Both last.
  [
    "{name} received {other} from you on {issued}. The new bill is {amount}, due {due}.",
    "On {issued} {name} raised your fee from {other} to {amount}. Pay by {due}.",
    "You paid {other} on {issued}. Now {amount} is due by {due}. Regards, {name}",
    "Since {issued} the {other} is settled. By {due} please pay {amount} to {name}.",
  ],
]);

/** Other words and other orders, balanced in the same way. */
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

export const trainNames = [
  "Harbor Electric",
  "Bluebird Telecom",
  "Oakwood Dental",
  "Summit Insurance",
  "Riverside Gym",
  "Maple Street Garage",
  "Crown Cleaning",
  "Pioneer Internet",
  "Lakeview Clinic",
  "Golden Bakery",
  "Atlas Storage",
  "Cedar Gardens",
  "Metro Parking",
  "Silver Fox Films",
  "Willow Books",
  "Eagle Transport",
  "Fairway Sports",
  "Juniper Design",
  "Keystone Legal",
  "Velvet Music School",
] as const;

export const heldOutNames = [
  "Northgate Water",
  "Tulip Flowers",
  "Granite Roofing",
  "Falcon Courier",
  "Sunrise Daycare",
  "Copper Kettle Cafe",
  "Beacon Heating",
  "Orchid Spa",
  "Delta Printing",
  "Hilltop Vet",
  "Nimbus Hosting",
  "Redwood Carpentry",
] as const;

const months =
  "January February March April May June July August September October November December".split(
    " ",
  );

/** `perTemplate` mails of each template. The same arguments give the same mails. */
export function writeMails(
  templates: readonly string[],
  names: readonly string[],
  perTemplate: number,
  seed: number,
): Mail[] {
  const random = uniforms(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  return templates.flatMap((template) =>
    Array.from({ length: perTemplate }, () => {
      const amount = (1000 + below(29_000)) / 100;
      let other = amount;
      while (other === amount) other = (1000 + below(29_000)) / 100;
      const issued = below(365);
      const facts = {
        name: names[below(names.length)] ?? "",
        amount: amount.toFixed(2),
        other: other.toFixed(2),
        issued: dayAndMonth(issued),
        due: dayAndMonth(issued + 7 + below(40)),
      };
      const text = template.replace(/\{(\w+)\}/g, (_, fact: string) => facts[fact as Fact]);
      return {
        template: orderOf(template).join(" "),
        text,
        bill: { name: facts.name, amount, due: facts.due },
      };
    }),
  );
}

/** The first of each list, then the second of each. */
export function takeTurns<T>(lists: readonly (readonly T[])[]): T[] {
  const longest = Math.max(...lists.map(({ length }) => length));
  return Array.from({ length: longest }, (_, turn) => turn).flatMap((turn) =>
    lists.flatMap((list) => list.slice(turn, turn + 1)),
  );
}

export type Fact = "name" | "amount" | "due" | "other" | "issued";

/** The facts of a template, in the order in which it tells them. */
export function orderOf(template: string): Fact[] {
  return [...template.matchAll(/\{(\w+)\}/g)].map(([, fact]) => fact as Fact);
}

function dayAndMonth(day: number): string {
  const date = new Date(Date.UTC(2026, 0, 1 + day));
  return `${date.getUTCDate()} ${months[date.getUTCMonth()]}`;
}

/** Mulberry32: small, and the same on every machine. */
function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
