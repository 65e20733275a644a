import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it, onTestFinished } from "vitest";
import { labelledSchema, preferenceSchema, readRows } from "./good-teacher/preferences.ts";
import { readJudgeData } from "./train-judge/read-data.ts";

async function written(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "hone-data-rows-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const path = join(folder, "data.jsonl");
  await writeFile(path, text);
  return path;
}
const said = (content: string, prompt: string) => [
  { role: "user", content: prompt },
  { role: "assistant", content },
];
const preference = (prompt: string) => ({
  ...{ prompt, chosen: said("a", prompt), rejected: said("b", prompt) },
});
const judged = (content: string) => ({
  input: [{ role: "user", content: "Why?" }],
  output: [{ answer: { content, label: { helpfulness: 3 } } }],
});

it("reads UltraFeedback's schema from Parquet, whose columns of its own are not read", async () => {
  const path = fileURLToPath(
    new URL("good-teacher/testing/ultrafeedback.parquet", import.meta.url),
  );
  const rows = await readRows(path, preferenceSchema);
  expect(rows).toHaveLength(3);
  expect(rows[2]).toEqual({
    ...{ prompt: "Prompt 2", chosen: said("b2", "Prompt 2"), rejected: said("a2", "Prompt 2") },
    ...{ score_chosen: 7.5, score_rejected: 4 },
  });
});

it("ends a line at line feeds alone: other characters that end one may stand in a text", async () => {
  const odd = "one\u2028two\u2029three\u0085four";
  const rows = await readRows(
    await written(`${JSON.stringify(preference(odd))}\r\n${JSON.stringify(preference("2"))}`),
    preferenceSchema,
  );
  expect(rows.map(({ prompt }) => prompt)).toEqual([odd, "2"]);
  const [record] = await readJudgeData(await written(JSON.stringify(judged(odd))));
  expect(record?.answers[0]?.content).toBe(odd);
});

it("says the same of bad rows, of none and of no file, whoever reads them", async () => {
  const lines = [JSON.stringify(preference("1")), "{", "[]", "", '{"prompt": ""}'];
  const bad = await written(lines.join("\n"));
  await expect(readRows(bad, labelledSchema)).rejects.toThrow(
    /^data\.jsonl:1 is not as expected[^]*\ndata\.jsonl:2 is not JSON[^]*Was the file cut\?\ndata\.jsonl:3 [^]*\ndata\.jsonl:5 /,
  );
  await expect(readJudgeData(bad)).rejects.toThrow(
    /^data\.jsonl:2 is not JSON[^]*Was the file cut\?\ndata\.jsonl:3 [^]*\ndata\.jsonl:5 /,
  );
  for (const read of [readJudgeData, async (path: string) => readRows(path, preferenceSchema)]) {
    await expect(read("/nowhere.jsonl")).rejects.toThrow(/nowhere\.jsonl cannot be read: ENOENT/);
    await expect(read(await written("\n"))).rejects.toThrow(/data\.jsonl has no (line|rows)/);
  }
});
