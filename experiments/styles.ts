// `pnpm experiment styles FOLDER` — what a run of the 2048 quickstart has become: for each of its evaluations, the
// share of the moves that each of the base's styles would choose too, and what the best style reaches on these games.
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { ceilingOf, evaluationsOf } from "./styles/played-games.ts";

const [folder] = parseArgs({ allowPositionals: true, options: {} }).positionals;
if (folder === undefined) {
  console.error("pnpm experiment styles FOLDER: the folder of a run, such as runs/quickstart-…");
  process.exit(2);
}
const run = resolve(folder);
console.table(
  (await evaluationsOf(run)).map(({ label, games, score, shares }) => ({
    ...{ evaluation: label, games, score: Math.round(score) },
    ...Object.fromEntries(
      Object.entries(shares).map(([style, share]) => [style, `${(100 * share).toFixed(0)}%`]),
    ),
  })),
);
const { name, score } = await ceilingOf(run);
console.log(`The ${name} style, on the same games: ${score.toFixed(0)}.`);
