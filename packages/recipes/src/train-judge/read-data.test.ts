import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it, onTestFinished } from "vitest";
import { casesOf } from "./judge-case.ts";
import { readJudgeData } from "./read-data.ts";
import { writtenRecord } from "./record.ts";

async function written(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "hone-judge-data-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "data.jsonl");
  await writeFile(file, text);
  return file;
}
const parquet = (name: string) =>
  fileURLToPath(new URL(`testing/${name}.parquet`, import.meta.url));
const line = (label: object, content = "an answer") => ({
  input: [{ role: "user", content: "Why?" }],
  output: [{ answer: { role: "assistant", content, label } }],
});
const pair = (a: object, b: object) => ({
  input: [{ role: "user", content: "Why?" }],
  output: [a, b].map((label, at) => ({ answer: { content: `answer ${at}`, label } })),
});

it("reads JSONL, blank lines and unknown keys aside", async () => {
  const lines = [line({ helpfulness: 3, coherence: 2 }), line({ helpfulness: 0 })];
  const file = await written(`\n${lines.map((one) => JSON.stringify(one)).join("\n\n")}\n`);
  const records = await readJudgeData(file);
  expect(records.map(({ place }) => place)).toEqual(["data.jsonl:2", "data.jsonl:4"]);
  expect(casesOf(records, "pointwise")).toMatchObject([
    { label: 3, answer: "an answer" },
    { label: 0 },
  ]);
});

it("names every bad line by file and line, and gives nothing of the file", async () => {
  const good = JSON.stringify(line({ helpfulness: 3 }));
  const bad = [
    "{",
    JSON.stringify(line({ helpfulness: 5 })),
    JSON.stringify(line({ helpfulness: "3" })),
    JSON.stringify({ input: [], output: [] }),
    JSON.stringify(line({ preference: "C" })),
    JSON.stringify(pair({ preference: "A" }, { preference: "B" })),
  ];
  const file = await written(`${[good, ...bad].join("\n")}\n`);
  const { message } = await readJudgeData(file).then(
    () => new Error("nothing was wrong"),
    (thrown: unknown) => thrown as Error,
  );
  expect(message).toMatch(/data\.jsonl:2 is not JSON/);
  expect(message).toMatch(/data\.jsonl:3 .*helpfulness is a whole number from 0 to 4/);
  expect(message).toMatch(/data\.jsonl:5/);
  expect(message).toMatch(/data\.jsonl:6 .*preference must be one of/);
  expect(message).toMatch(/… and 1 more/);
});

it("reads Parquet with Snappy: nested columns, 64-bit numbers, pairs as JSON texts", async () => {
  const records = await readJudgeData(parquet("pointwise"));
  expect(records).toMatchObject([
    {
      place: "pointwise.parquet:row 1",
      input: [{ role: "user", content: "Why?" }],
      answers: [
        { content: "Because.", helpfulness: 0 },
        { content: "Gravity pulls it.", helpfulness: 4 },
      ],
    },
    { input: [{ content: "When — größer?" }], answers: [{ helpfulness: 3 }] },
  ]);
  const [chosen] = casesOf(await readJudgeData(parquet("pairs")), "pairwise");
  expect(chosen).toMatchObject({ preference: "A", answers: ["Gravity.", "No."] });
});

it("says what is wrong with a file that cannot be read", async () => {
  await expect(readJudgeData(parquet("bad"))).rejects.toThrow(/bad\.parquet cannot be read/);
  await expect(readJudgeData("/nowhere.jsonl")).rejects.toThrow(/nowhere\.jsonl cannot be read/);
  await expect(readJudgeData([])).rejects.toThrow(/no line to learn from/);
});

it("compares answers by their preference, else by their marks", async () => {
  const lines = [
    pair({ preference: "B" }, { preference: "B" }),
    pair({ preference: "tie" }, {}),
    pair({ helpfulness: 4 }, { helpfulness: 1 }),
    pair({ helpfulness: 1 }, { helpfulness: 1 }),
  ];
  const cases = casesOf(await readJudgeData(lines), "pairwise");
  expect(cases).toMatchObject(["B", "tie", "A", "tie"].map((preference) => ({ preference })));
});

it("names the line that says nothing in the mode", async () => {
  const records = await readJudgeData([line({ helpfulness: 3 }), line({})]);
  expect(() => casesOf(records, "pairwise")).toThrow(/data\[0\] .*it has 1/s);
  expect(() => casesOf(records, "pointwise")).toThrow(
    /data\[1\] .*no answer has label\.helpfulness/,
  );
  const [unlabelled] = await readJudgeData([pair({}, { helpfulness: 1 })]);
  expect(() => casesOf([unlabelled!], "pairwise")).toThrow(/neither label\.preference/);
});

it("writes what it reads", async () => {
  const lines = [line({ helpfulness: 2 }), pair({ preference: "tie" }, { preference: "tie" })];
  const records = await readJudgeData(lines);
  expect(await readJudgeData(records.map((record) => writtenRecord(record)))).toEqual(records);
});
