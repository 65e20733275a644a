// Whether the inbox agent reads mails or has learnt the words of its training mails:
//   pnpm experiment strangers [--out FOLDER] [--seed N] [--steps N]
// It is trained as in the quickstart. Before and after that it answers the quickstart's held-out mails, and mails in
// eight wordings of somebody who had seen none of the others, greedily.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compare, evaluationTable, type TrajectoryGroup } from "@hone/client";
import { writeMails, type Mail } from "../examples/inbox/src/bills.ts";
import inbox from "../examples/inbox/src/task.ts";
import { answer, trainArm } from "./inbox/arm.ts";
import { openResults } from "./inbox/results.ts";
import { withSmollm2 } from "./inbox/served.ts";

const { values } = parseArgs({
  options: {
    out: { type: "string", default: "runs/strangers" },
    seed: { type: "string", default: "0" },
    steps: { type: "string", default: String(inbox.options?.steps) },
  },
});

const wordings = new URL("inbox-strangers.json", import.meta.url);
const strangers = JSON.parse(await readFile(wordings, "utf8")) as {
  wordings: string[];
  names: string[];
};
const sets: Record<string, readonly Mail[]> = {
  shipped: inbox.heldOut,
  strangers: writeMails(strangers.wordings, strangers.names, 6, 9),
};
const mails = Object.entries(sets).flatMap(([set, of]) => of.map((mail) => ({ ...mail, set })));

const { folder, results, keep } = await openResults(values.out);
await withSmollm2(join(folder, "server"), async (hone) => {
  const name = `steps-${values.steps}-seed-${values.seed}`;
  await keep("base", () => answer(hone, "base", mails));
  const arm = { name, demonstrations: 0, steps: Number(values.steps) };
  await keep(name, async () => answer(hone, await trainArm(hone, arm, Number(values.seed)), mails));
  for (const metric of ["exact", "json", "name", "amount", "due"]) {
    console.log(metric);
    console.table(evaluationTable(results, { metric, by: ({ set }: { set: string }) => set }));
  }
  for (const set of Object.keys(sets)) {
    const of = (groups: TrajectoryGroup[] = []) =>
      groups.filter(({ scenario }) => (scenario as { set: string }).set === set);
    console.log(set, compare(of(results["base"]), of(results[name]), { metric: "exact" }));
  }
});
