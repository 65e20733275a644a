import { expect, it } from "vitest";
import {
  heldOutNames,
  heldOutTemplates,
  orderOf,
  trainNames,
  trainTemplates,
  writeMails,
} from "./bills.ts";
import { heldOut, train } from "./task.ts";

const sets = [
  { templates: trainTemplates, each: 4 },
  { templates: heldOutTemplates, each: 2 },
];

it.each(sets)("has every combination of wanted first and last $each times", (set) => {
  const cells = new Map<string, number>();
  for (const template of set.templates) {
    const order = orderOf(template);
    expect([...order].sort()).toEqual(["amount", "due", "issued", "name", "other"]);
    const amountFirst = order.indexOf("amount") < order.indexOf("other");
    const dateFirst = order.indexOf("due") < order.indexOf("issued");
    const cell = `${amountFirst} ${dateFirst}`;
    cells.set(cell, (cells.get(cell) ?? 0) + 1);
  }
  expect([...cells.values()]).toEqual(Array(4).fill(set.each));
});

it("tells facts in another order in each template, and holds out orders, templates and names", () => {
  const orders = [...trainTemplates, ...heldOutTemplates].map((text) => orderOf(text).join(" "));
  expect(new Set(orders).size).toBe(orders.length);
  const names = [...trainNames, ...heldOutNames];
  // No word of a held-out name was ever seen in a name.
  const words = (list: readonly string[]) => list.flatMap((name) => name.split(" "));
  expect(new Set(names).size).toBe(names.length);
  expect(words(heldOutNames).filter((word) => words(trainNames).includes(word))).toEqual([]);
  expect(train.length).toBe(trainTemplates.length * 20);
  expect(heldOut.length).toBe(heldOutTemplates.length * 12);
  const shared = (of: (mail: (typeof train)[number]) => string) => {
    const seen = new Set(train.map(of));
    return heldOut.filter((mail) => seen.has(of(mail)));
  };
  expect(shared((mail) => mail.template)).toEqual([]);
  expect(shared((mail) => mail.bill.name)).toEqual([]);
  expect(shared((mail) => mail.text)).toEqual([]);
});

it("gives every step of 8 mails two of each combination", () => {
  for (let first = 0; first < train.length; first += 8) {
    const kinds = train.slice(first, first + 8).map(({ template }) => {
      const order = template.split(" ");
      const before = (fact: string, other: string) => order.indexOf(fact) < order.indexOf(other);
      return `${before("amount", "other")} ${before("due", "issued")}`;
    });
    expect([...kinds].sort()).toEqual(
      ["false false", "false true", "true false", "true true"].flatMap((kind) => [kind, kind]),
    );
  }
});

it("writes what it asks for into the mail, beside another amount and another date", () => {
  for (const { text, bill } of [...train, ...heldOut]) {
    expect(text).toContain(bill.name);
    const amounts = text.match(/\d+\.\d\d/g) ?? [];
    expect(new Set(amounts).size).toBe(2);
    expect(amounts.map(Number)).toContain(bill.amount);
    const dates = text.match(
      /\d+ (January|February|March|April|May|June|July|August|September|October|November|December)/g,
    );
    expect(new Set(dates).size).toBe(2);
    expect(dates).toContain(bill.due);
    expect(text).not.toMatch(/[{}]|undefined/);
  }
});

it("writes the same mails again, and others for another seed", () => {
  const write = (seed: number) => writeMails(heldOutTemplates, heldOutNames, 3, seed);
  expect(write(5)).toEqual(write(5));
  expect(write(5)).not.toEqual(write(6));
});
