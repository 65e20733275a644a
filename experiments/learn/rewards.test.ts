import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { findEnvironment } from "@hone/server";
import { expect, it } from "vitest";
import type { Bill } from "../../examples/inbox/src/bills.ts";
import { scoreAnswer } from "../../examples/inbox/src/reward.ts";
import type { Position } from "./move-values.ts";
import { rewardOf } from "./moves.ts";

const bill: Bill = { name: "Café Ångström 🦊", amount: 41.3, due: "9 June" };
const whole: Bill = { name: "x", amount: 1, due: "" };
const right = '"name": "Café Ångström 🦊", "amount": 41.30, "due": "9 June"';

/** What models write, and what JSON readers disagree on. */
const answers = [
  `{${right}}`,
  ` \n\t{${right}}\r\n`,
  `{"name": "Caf\\u00e9 \\u00c5ngstr\\u00f6m \\ud83e\\udd8a", "amount": 4.13e1, "due": "9 June"}`,
  `{"name": "Cafe\u0301 A\u030Angstro\u0308m 🦊", "amount": 41.3, "due": "9 June"}`,
  `{${right}, "issued": "2 May"}`,
  `{${right}, "due": "10 June"}`,
  `{"due": "1 June", ${right}}`,
  `{"amount": 41.3}`,
  `{"amount": "41.30", "name": null, "due": ["9 June"]}`,
  `{"name": "Café Ångström 🦊", "amount": 41.300000000000000001, "due": "9 june"}`,
  `{"amount": 41.30000001, "due": "9 June", "name": ""}`,
  `{"amount": 1e400, "due": "9 June", "name": "x"}`,
  `{"amount": ${"9".repeat(5000)}, "due": "9 June", "name": "x"}`,
  `{"amount": -0, "due": "9 June", "name": "\\ud83e"}`,
  `{"amount": NaN, "due": "9 June", "name": "x"}`,
  `{"amount": Infinity, "due": "9 June"}`,
  `{"amount": -Infinity, "due": "9 June"}`,
  `{"amount": 041.3, "due": "9 June"}`,
  `{"amount": 41., "due": "9 June"}`,
  `{"amount": .5, "due": "9 June"}`,
  `{"amount": +41.3, "due": "9 June"}`,
  `{"amount": ٤١, "due": "9 June"}`,
  `{"due": "9 June", }`,
  `{'due': '9 June'}`,
  `{"due": "9\nJune"}`,
  `{"due": "9\u007fJune"}`,
  `{"due": "9 June"} and so on`,
  `Here it is: {${right}}`,
  "```json\n{}\n```",
  `{"a": {"name": "x"}, "name": {"name": "x"}}`,
  `{"__proto__": 1, "name": "x", "amount": true, "due": ""}`,
  `{"name": "x", "amount": true, "due": ""}`,
  `{"name": "x", "amount": 1, "due": ""}`,
  `{"name": "x", "amount": 1.0, "due": ""}`,
  `{"name": "x", "amount": 1, "due": "", "": 0}`,
  "{}",
  "[]",
  "null",
  "41.3",
  '"9 June"',
  "",
  " ",
  "\ufeff{}",
  "\u00a0{}",
  "{".repeat(3000),
  "[".repeat(3000) + "]".repeat(3000),
];

const position: Position = {
  board: [0, 0, 2, 0, 0, 0, 0, 2, 0],
  values: { up: 5.7293, down: 5.7625, left: 0 },
  style: "down",
};
const moves = [
  "up",
  " Up\n",
  "DOWN",
  "down.",
  "left",
  "right",
  "no",
  "",
  "\ufeffup\u00a0",
  "up up",
];

it("rewards answers in Python as in TypeScript", async () => {
  const bills = [bill, whole].flatMap((one) => answers.map((answer) => ({ answer, bill: one })));
  const expected = [
    ...bills.map((one) => scoreAnswer(one.answer, one.bill).reward),
    ...moves.map((answer) => rewardOf(answer, position)),
  ];
  const asked = [
    ...bills.map((one) => [one.answer, { kind: "bill", bill: one.bill }]),
    ...moves.map((answer) => [answer, { kind: "moves", values: position.values }]),
  ];
  const said = await inPython(asked);
  expect(said).toEqual(expected);
  // All the marks that there are were given.
  expect(new Set(said.slice(0, bills.length))).toEqual(new Set([0, 0.2, 0.4, 0.6, 0.8, 1]));
});

async function inPython(asked: unknown): Promise<number[]> {
  const script = fileURLToPath(new URL("rewards.py", import.meta.url));
  const python = await findEnvironment();
  const text = await new Promise<string>((resolve, reject) => {
    const child = execFile(python, [script], (error, stdout) =>
      error ? reject(error) : resolve(stdout),
    );
    child.stdin?.end(JSON.stringify(asked));
  });
  return JSON.parse(text) as number[];
}
