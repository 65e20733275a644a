import { expect, it } from "vitest";
import { comesBefore, composeMails, heldOutNames, heldOutTemplates, writeMails } from "./bills.ts";
import * as sentences from "./sentences.ts";
import { heldOut, train } from "./task.ts";

const kindOf = (template: string) =>
  `${comesBefore("amount", "other", template)} ${comesBefore("due", "issued", template)}`;
/** How many there are of each kind. */
const kinds = (templates: readonly string[]) => {
  const all = templates.map(kindOf);
  return [...new Set(all)].map((kind) => all.filter((one) => one === kind).length);
};
const braced = (order: string) => order.replace(/\w+/g, "{$&}");

it("has every combination of wanted first and last equally often, in each step and held out", () => {
  for (let first = 0; first < train.length; first += 8) {
    const step = train.slice(first, first + 8).map(({ order }) => braced(order));
    expect(kinds(step)).toEqual([2, 2, 2, 2]);
  }
  expect(kinds(heldOutTemplates)).toEqual([2, 2, 2, 2]);
});

it("tells each fact once", () => {
  for (const { order } of [...train, ...heldOut]) {
    expect(order.split(" ").sort()).toEqual(["amount", "due", "issued", "name", "other"]);
  }
});

it("composes hundreds of wordings, and holds out sentences and names", () => {
  const bare = ({ text, bill }: (typeof train)[number]) =>
    text
      .replace(bill.name, "N")
      .replaceAll(/\d+\.\d\d/g, "A")
      .replaceAll(/\d+ [A-Z]\w+/g, "D");
  const seen = new Set(train.map(bare));
  expect(seen.size).toBeGreaterThan(0.95 * train.length);
  expect(heldOut.filter((mail) => seen.has(bare(mail)))).toEqual([]);
  // No word of a held-out name was ever seen in a name.
  const words = (names: readonly string[]) => names.flatMap((name) => name.split(" "));
  const { trainNames, ...parts } = sentences;
  expect(words(heldOutNames).filter((word) => words(trainNames).includes(word))).toEqual([]);
  expect(new Set(train.map(({ text }) => text)).size).toBe(train.length);
  const known = Object.values(parts).flat();
  const heldOutSentences = heldOutTemplates.flatMap((text) => text.split(/(?<=\.) /));
  expect(heldOutSentences.filter((text) => known.includes(text))).toEqual([]);
});

it("writes what it asks for into the mail, beside another amount and another date", () => {
  for (const { text, bill } of [...train, ...heldOut]) {
    expect(text).toContain(bill.name);
    const amounts = text.match(/\d+\.\d\d/g) ?? [];
    expect(new Set(amounts).size).toBe(2);
    expect(amounts.map(Number)).toContain(bill.amount);
    const dates = text.match(/\d+ [JFMASOND][a-z]{2,8}/g);
    expect(new Set(dates).size).toBe(2);
    expect(dates).toContain(bill.due);
    expect(text).not.toMatch(/[{}#]|undefined|^ | {2}/);
  }
});

it("writes the same mails again, and others for another seed", () => {
  const write = (seed: number) => [
    ...writeMails(heldOutTemplates, heldOutNames, 3, seed),
    ...composeMails(8, seed),
  ];
  expect(write(5)).toEqual(write(5));
  expect(write(5)).not.toEqual(write(6));
});
