// Whether the inbox agent reads mails or has learnt the words of its training mails:
//   pnpm experiment strangers [--seeds 0,1] [--steps N] [--out FOLDER]   trains as in the quickstart
//   pnpm experiment strangers --run FOLDER [--out FOLDER]                takes what a run of the quickstart has learnt
// Before and after training it answers the quickstart's held-out mails, and mails in wordings of strangers, greedily.
// A stranger is somebody who had seen none of the other mails: inbox/strangers/, and a file put there is one more.
// What is done stands in FOLDER/results.json, and the same command goes on there.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compare, evaluationTable, type Hone } from "@hone/client";
import type { Mail } from "../examples/inbox/src/bills.ts";
import inbox from "../examples/inbox/src/task.ts";
import { answer, trainArm } from "./inbox/arm.ts";
import { openResults } from "./inbox/results.ts";
import { policyOfRun } from "./inbox/run-policy.ts";
import { withSmollm2 } from "./inbox/served.ts";
import { mailsOfStrangers } from "./inbox/strangers.ts";

const { values } = parseArgs({
  options: {
    out: { type: "string", default: "runs/strangers" },
    seeds: { type: "string", default: "0" },
    steps: { type: "string", default: String(inbox.options?.steps) },
    run: { type: "string" },
  },
});

/** Its model is made where it has not answered everything yet. */
type Arm = [name: string, make: (hone: Hone) => Promise<string>];

const sets: Record<string, readonly Mail[]> = {
  shipped: inbox.heldOut,
  ...(await mailsOfStrangers()),
};
const learnt = values.run === undefined ? null : await learntBy(values.run);
const arms = learnt ? [learnt.arm] : trained();
const { folder, results, keep } = await openResults(values.out);
await withSmollm2(learnt?.data ?? join(folder, "server"), async (hone) => {
  for (const [arm, make] of [["base", async () => "base"], ...arms] as Arm[]) {
    let made: Promise<string> | undefined;
    // Set by set: a stranger who comes later is all that is asked then.
    for (const [set, mails] of Object.entries(sets)) {
      const named = mails.map((mail) => ({ ...mail, set }));
      await keep(`${arm} on ${set}`, async () => answer(hone, await (made ??= make(hone)), named));
    }
  }
});

const answersOf = (arm: string) =>
  Object.keys(sets).flatMap((set) => results[`${arm} on ${set}`] ?? []);
const shown = Object.fromEntries(
  ["base", ...arms.map(([arm]) => arm)].map((arm) => [arm, answersOf(arm)]),
);
for (const metric of ["exact", "json", "name", "amount", "due"]) {
  console.log(metric);
  console.table(evaluationTable(shown, { metric, by: ({ set }: { set: string }) => set }));
}
for (const [arm] of arms) {
  const gains = Object.keys(sets).map((set) => {
    const [before, after] = ["base", arm].map((one) => results[`${one} on ${set}`] ?? []);
    return { arm, set, ...compare(before ?? [], after ?? [], { metric: "exact" }) };
  });
  console.table(gains);
}

function trained(): Arm[] {
  return values.seeds.split(",").map((seed) => {
    const name = `steps-${values.steps}-seed-${seed}`;
    const arm = { name, demonstrations: 0, steps: Number(values.steps) };
    return [name, (hone) => trainArm(hone, arm, Number(seed))];
  });
}

/** The newest policy of a run that is through. */
async function learntBy(run: string): Promise<{ arm: Arm; data: string }> {
  const { policy, data } = await policyOfRun(run).catch((error: unknown) => {
    console.error((error as Error).message);
    process.exit(2);
  });
  return { arm: [policy, async () => policy.replace(/@\d+$/, "")], data };
}
