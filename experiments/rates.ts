// `pnpm experiment rates [--rates 1e-4] [--steps 24] [--seed 1,2,3] [--minutes N] [--out FOLDER]` — what `model.train`
// learns on SmolLM2 by its learning rate, with the defaults for all other options. The task is small, so that a step
// takes seconds: name the queue that a ticket belongs to, in one word. What was begun in the same folder goes on, step by
// step; with --minutes it ends in time, and the next call goes on. The interval is over tickets, each with the mean of
// its seeds.
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import {
  evaluationTable,
  gather,
  type Hone,
  readGroups,
  type RolloutModel,
  type TrajectoryGroup,
  writeGroups,
} from "@hone/client";
import OpenAI from "openai";
import { withSmollm2 } from "./inbox/served.ts";

const { values } = parseArgs({
  options: {
    rates: { type: "string", default: "1e-4" },
    steps: { type: "string", default: "24" },
    seed: { type: "string", default: "1,2,3" },
    minutes: { type: "string" },
    out: { type: "string", default: "runs/rates" },
  },
});

interface Ticket {
  text: string;
  queue: string;
}

/** The last three texts of each queue are held out. */
const queues: Record<string, readonly string[]> = {
  billing: [
    "My invoice shows the wrong sum.",
    "You charged my card twice.",
    "Why did the price go up?",
    "I need a receipt for my tax.",
    "The discount is missing on my bill.",
    "Can I pay in two rates?",
    "My payment did not go through.",
    "I was billed after I cancelled.",
    "The VAT on this bill is wrong.",
  ],
  delivery: [
    "My parcel has not come yet.",
    "Where is the package that you sent on Monday?",
    "The driver left it with a stranger.",
    "Can you send it to another address?",
    "How long does shipping to Spain take?",
    "Tracking says that it is lost.",
    "It should have arrived yesterday.",
    "The courier never rang the bell.",
    "Please ship it by express.",
  ],
  returns: [
    "The shoes do not fit, I want to send them back.",
    "How do I return a gift?",
    "I would like another colour instead.",
    "The lamp is broken, take it back.",
    "Do you have a label for sending it back?",
    "I changed my mind about the coat.",
    "Can I exchange this for a larger one?",
    "The box was opened, may I still give it back?",
    "I do not want the chair any more.",
  ],
  account: [
    "I forgot my password.",
    "Please change my mail address.",
    "I cannot log in.",
    "How do I delete my profile?",
    "The code for signing in never comes.",
    "Somebody else uses my login.",
    "My user name is misspelt.",
    "Turn off two-step sign-in, please.",
    "I am locked out after three tries.",
  ],
};
const greetings = ["", "Hello! ", "Dear team, "];
const tickets = (from: number, to?: number): Ticket[] =>
  greetings.flatMap((greeting) =>
    Array.from({ length: 9 }, (_, at) => at)
      .slice(from, to)
      .flatMap((at) =>
        Object.entries(queues).map(([queue, texts]) => ({ text: greeting + texts[at], queue })),
      ),
  );
const train = tickets(0, -3);
const heldOut = tickets(-3);

const examples = [
  {
    role: "system",
    content: "Sort tickets into the queues billing, delivery, returns and account.",
  },
  { role: "user", content: "I want my money back for the broken cup." },
  { role: "assistant", content: "returns" },
  { role: "user", content: "My mail address has changed." },
  { role: "assistant", content: "account" },
  { role: "user", content: "Why do I pay 20 more than last month?" },
  { role: "assistant", content: "billing" },
  { role: "user", content: "Nobody brought the letter." },
  { role: "assistant", content: "delivery" },
] as const;

/** 1 for the queue and nothing else, .5 where it is written in another way, 0 otherwise. */
async function rollout(model: RolloutModel, { text, queue }: Ticket, temperature: number) {
  const connection = model.connection();
  const completion = await new OpenAI(connection).chat.completions.create(
    {
      model: connection.model,
      messages: [...examples, { role: "user", content: text }],
      ...{ max_tokens: 4, temperature },
    },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  const exact = answer === queue ? 1 : 0;
  const meant = answer.toLowerCase().includes(queue) ? 0.5 : 0;
  return { reward: Math.max(exact, meant), metrics: { exact }, logs: [answer] };
}

const out = resolve(values.out);
const until = Date.now() + Number(values.minutes ?? Infinity) * 60_000;
const steps = Number(values.steps);
const arms = values.rates
  .split(",")
  .flatMap((rate) => values.seed.split(",").map((seed) => ({ rate, seed: Number(seed) })));

/** Once: the folder keeps it. */
async function answersOf(hone: Hone, name: string): Promise<TrajectoryGroup[]> {
  const file = join(out, `${name}.jsonl`);
  if (existsSync(file)) return readGroups(file);
  const model = await hone.model({ name });
  const groups = await gather(model, (one, ticket) => rollout(one, ticket, 0), heldOut, {
    ...{ groupSize: 1, mode: "eval" },
  });
  await writeGroups(file, groups);
  return groups;
}

/** False where the time ended before its steps did. */
async function trained(hone: Hone, name: string, { rate, seed }: (typeof arms)[0]) {
  if (existsSync(join(out, `${name}.jsonl`))) return true;
  const model = await hone.model({ name, seed });
  for await (const batch of model.batches(train, { groupsPerStep: 4, steps, seed })) {
    if (Date.now() > until) return false;
    const groups = await gather(model, (one, ticket) => rollout(one, ticket, 1), batch.scenarios);
    const { metrics } = await model.train(groups, { learningRate: Number(rate), batch });
    const all = groups.flatMap(({ trajectories }) => trajectories.map((one) => one.reward ?? 0));
    const mean = all.reduce((sum, one) => sum + one, 0) / all.length;
    console.log(
      `${name} step ${batch.step}: ${mean.toFixed(2)}, entropy ${String(metrics?.["entropy"])}`,
    );
  }
  return true;
}

await withSmollm2(join(out, "server"), async (hone) => {
  const base = await answersOf(hone, "base");
  const bySeed: Record<string, TrajectoryGroup[]> = { base };
  const pooled = { base } as Record<string, TrajectoryGroup[]>;
  for (const arm of arms) {
    const name = `rate-${arm.rate}-seed-${arm.seed}`;
    if (!(await trained(hone, name, arm))) {
      console.log("The time is up: the same command goes on.");
      return;
    }
    const answers = await answersOf(hone, name);
    bySeed[`${arm.rate}, seed ${arm.seed}`] = answers;
    pooled[arm.rate] = answers.map((group, at) => ({
      ...group,
      trajectories: [...(pooled[arm.rate]?.[at]?.trajectories ?? []), ...group.trajectories],
    }));
  }
  for (const metric of ["exact", "reward"]) {
    console.log(metric);
    console.table(evaluationTable(bySeed, { metric }));
    console.table(evaluationTable(pooled, { metric }));
  }
});
