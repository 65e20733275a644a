// The snippets of docs/supervised.md. `run` goes through all of them against a live server.
import { mkdir, writeFile } from "node:fs/promises";
import { bestOfN, Hone, readGroups } from "@hone/client";
import type { DpoExample, Model, SftExample } from "@hone/client";

async function imitating(model: Model) {
  // #region sft
  const learnt = await model.sft("data/tickets.jsonl", {
    epochs: 2,
    batchSize: 8, // examples of a step
    learningRate: 1e-3,
    schedule: { type: "cosine" },
    validation: 0.2, // the share that is held out and only measured
    onProgress: (event) => {
      if (event.type === "step") console.log(`${event.step}/${event.steps}: ${event.loss}`);
      if (event.type === "validation") console.log(`perplexity ${event.perplexity}`);
    },
  });
  console.log(`${learnt.policy} after ${learnt.done} steps, ${learnt.dropped.length} left out`);
  // #endregion
  return learnt;
}

async function ownRollouts(model: Model) {
  // #region best-of-n
  const groups = await readGroups("data/groups.jsonl"); // or a run's folder: the groups of all its steps
  await model.sft(bestOfN(groups, { minReward: 0.5 }), { epochs: 2 });
  // #endregion
}

async function preferring(model: Model, reference: number) {
  // #region dpo
  const pairs: DpoExample[] = [
    {
      prompt: [{ role: "user", content: "Where is my parcel?" }],
      chosen: [{ role: "assistant", content: "Let me look. What is its number?" }],
      rejected: [{ role: "assistant", content: "I do not know." }],
    },
  ];
  const learnt = await model.dpo(pairs, { beta: 0.1, reference, validation: pairs });
  console.log(learnt.validations.map(({ metrics }) => metrics["rewards/margins"]));
  // #endregion
  return pairs;
}

async function rewarding(hone: Hone, pairs: DpoExample[]) {
  // #region reward-model
  const critic = await hone.model({ name: "critic" });
  const learnt = await critic.bradleyTerry(pairs, {
    learningRate: 1e-3,
    epochs: 2,
    validation: pairs,
    onProgress: (event) => {
      if (event.type === "validation") console.log(`held out: ${event.metrics["accuracy"]}`);
    },
  });
  console.log(learnt.policy);
  // #endregion
}

const kinds = ["billing", "delivery", "returns", "other"];

/** The files that the snippets read. */
async function write(): Promise<void> {
  await mkdir("data", { recursive: true });
  const examples: SftExample[] = Array.from({ length: 20 }, (_, at) => ({
    messages: [
      { role: "user", content: `Ticket ${at} is about ${kinds[at % 4]}. Which queue?` },
      { role: "assistant", content: kinds[at % 4] ?? "" },
    ],
  }));
  await writeFile("data/tickets.jsonl", examples.map((one) => JSON.stringify(one)).join("\n"));
  const trajectory = {
    ...{ rolloutId: null, model: null, policy: null, tools: null, histories: [], logs: [] },
    ...{ metrics: {}, metadata: {}, reward: 1, startedAt: 0, durationMs: 1 },
    usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
    messages: [
      { role: "user", content: "Which queue?" },
      { role: "assistant", content: "billing" },
    ],
  };
  const group = { id: "g", trajectories: [trajectory], exceptions: [], metadata: {}, metrics: {} };
  await writeFile("data/groups.jsonl", JSON.stringify({ ...group, logs: [] }));
}

export async function run(hone: Hone): Promise<void> {
  await write();
  const model = await hone.model({ name: "supervised" });
  const { step } = await imitating(model);
  await ownRollouts(model);
  const pairs = await preferring(model, step);
  await rewarding(hone, pairs);
}
