import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { makeFolder } from "@hone/client/run";
import { smallSet } from "../good-teacher/small-set.ts";
import { jsonLines } from "../good-teacher/stage.ts";
import * as options from "./good-teacher-options.ts";

/** `good-teacher small-set`: the files of the small set, to look at and to make a base of. */
export function smallSetCommand(): Command {
  return options
    .withSeed(new Command("small-set"))
    .description(
      "Writes the small set: preferences.jsonl, conversations.jsonl for the first policy, scorer.mjs, and corpus.jsonl, which a base of its own is pretrained on.",
    )
    .requiredOption("--out <folder>", "where its files go")
    .option("--pairs <n>", "preferences (default: 600)", options.whole(20))
    .helpOption("-h, --help", "show this")
    .exitOverride()
    .action(async ({ out, seed, pairs }: { out: string; seed: number; pairs?: number }) => {
      await writeSmallSet(out, seed, pairs);
      console.log(`The small set is in ${out}.`);
    });
}

/** The same files for the same seed, whenever they are written. */
export async function writeSmallSet(folder: string, seed: number, pairs?: number) {
  makeFolder(folder, { param: "out" });
  const set = smallSet({ pairs, seed });
  const file = (name: string) => join(folder, name);
  await writeFile(file("preferences.jsonl"), jsonLines(set.preferences));
  await writeFile(file("conversations.jsonl"), jsonLines(set.conversations));
  await writeFile(file("corpus.jsonl"), jsonLines(set.corpus));
  await writeFile(file("scorer.mjs"), set.scorer);
  return {
    preferences: file("preferences.jsonl"),
    examples: file("conversations.jsonl"),
    scorer: file("scorer.mjs"),
  };
}
