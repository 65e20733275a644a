// `pnpm experiment rates [--rates 3e-5,1e-4,3e-4] [--steps 20] [--seed N] [--out FOLDER]` — what `model.train` learns
// on SmolLM2 by its learning rate, with the defaults for all other options. The task is small, so that a step takes
// seconds: name the queue that a ticket belongs to, in one word.
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { evaluationTable, gather, type Hone, type RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { withSmollm2 } from "./inbox/served.ts";

const { values } = parseArgs({
  options: {
    rates: { type: "string", default: "3e-5,1e-4,3e-4" },
    steps: { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
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

async function answerHeldOut(hone: Hone, name: string) {
  const model = await hone.model({ name });
  return await gather(model, (one, ticket) => rollout(one, ticket, 0), heldOut, {
    ...{ groupSize: 1, mode: "eval" },
  });
}

await withSmollm2(join(resolve(values.out), "server"), async (hone) => {
  const results = { base: await answerHeldOut(hone, "base") };
  console.table(evaluationTable(results, { metric: "exact" }));
  for (const rate of values.rates.split(",")) {
    const seed = Number(values.seed);
    const model = await hone.model({ name: `rate-${rate}`, seed });
    const rewards: string[] = [];
    for await (const batch of model.batches(train, {
      ...{ groupsPerStep: 4, steps: Number(values.steps), seed },
    })) {
      const groups = await gather(model, (one, ticket) => rollout(one, ticket, 1), batch.scenarios);
      await model.train(groups, { learningRate: Number(rate), batch });
      const all = groups.flatMap(({ trajectories }) => trajectories.map((one) => one.reward ?? 0));
      rewards.push((all.reduce((sum, one) => sum + one, 0) / all.length).toFixed(2));
      console.log(`${rate}: ${rewards.join(" ")}`);
    }
    Object.assign(results, { [rate]: await answerHeldOut(hone, `rate-${rate}`) });
    for (const metric of ["exact", "reward"]) {
      console.log(metric);
      console.table(evaluationTable(results, { metric }));
    }
  }
});
