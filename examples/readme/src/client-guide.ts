// The snippets of docs/client.md. `run` goes through all of them against a live server.
import {
  compare,
  ComparisonModel,
  evaluationTable,
  fillBatch,
  gather,
  Hone,
  HoneError,
  openRunLog,
  playAhead,
  readGroups,
  splitScenarios,
  writeGroups,
} from "@hone/client";
import type { Model, RolloutModel, TrajectoryGroup } from "@hone/client";
import OpenAI from "openai";

// #region rollout
async function rollout(model: RolloutModel, scenario: { prompt: string }) {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const completion = await client.chat.completions.create(
    {
      model: connection.model,
      messages: [{ role: "user", content: scenario.prompt }],
      max_tokens: 8,
    },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  return { reward: answer === "yes" ? 1 : 0, metrics: { length: answer.length }, logs: [answer] };
}
// #endregion

async function gathering(model: Model, scenarios: { prompt: string }[]) {
  // #region gather
  const groups = await gather(model, rollout, scenarios, {
    groupSize: 8, // rollouts of each scenario, compared with one another
    concurrency: 32,
    maxExceptions: 0.1, // a tenth may fail; what succeeded is kept
    retries: 1,
    timeoutMs: 60_000, // its error says in which model call the rollout was
    onProgress: (event) => {
      if (event.type === "rollout-failed") console.warn(event.exception.message);
    },
  });
  // #endregion
  return groups;
}

// #region turns
async function planAndAnswer(model: RolloutModel, scenario: { prompt: string }) {
  const { model: name, ...connection } = model.connection();
  const client = new OpenAI(connection);
  const ask = (content: string) =>
    client.chat.completions.create({
      model: name,
      messages: [{ role: "user", content }],
      max_tokens: 8,
    });
  const plan = await ask(`Plan: ${scenario.prompt}`);
  const thoughts = plan.choices[0]?.message.content ?? "";
  const answer = await ask(`${thoughts} ${scenario.prompt}`);
  return {
    reward: answer.choices[0]?.message.content === "yes" ? 1 : 0,
    completions: {
      [plan.id]: { trainable: false },
      [answer.id]: { weight: 2 },
    },
  };
}
// #endregion

// #region self-play
async function selfPlay(model: RolloutModel, { topic }: { topic: string }) {
  const { model: name, ...connection } = model.connection(); // both sides: recorded, and trained
  const { model: frozen, ...outside } = model.at(0); // the judge is the untrained model, and stays it
  const judge = new OpenAI(outside);
  const player = new OpenAI(connection);
  const say = (content: string) =>
    player.chat.completions.create({
      ...{ model: name, max_tokens: 8 },
      messages: [{ role: "user", content }],
    });
  const pro = await say(`Speak for ${topic}.`);
  const said = pro.choices[0]?.message.content ?? "";
  const contra = await say(`Speak against ${topic}. The other side says: ${said}`);
  const verdict = await judge.chat.completions.create({
    ...{ model: frozen, max_tokens: 8 },
    messages: [{ role: "user", content: `Who is right, pro or contra? ${said}` }],
  });
  const won = verdict.choices[0]?.message.content?.includes("pro") ? 1 : -1;
  return {
    reward: 0, // the mean that both sides are compared with
    completions: { [pro.id]: { reward: won }, [contra.id]: { reward: -won } },
  };
}
// #endregion

async function training(model: Model, groups: TrajectoryGroup[]) {
  // #region train
  const result = await model.train(groups, {
    learningRate: 1e-4,
    onEvent: (event) => {
      if (event.type === "stage") console.log(`${event.stage}: ${event.seconds.toFixed(2)} s`);
    },
  });
  if (result.trained) console.log(`${result.policy}: loss ${result.metrics["loss"]}`);
  else console.warn("trained nothing:", result.reasons); // such as { zero_variance: 3 }
  // #endregion
  return result;
}

async function handle(model: Model, groups: TrajectoryGroup[]) {
  // #region handle
  const step = model.startTrain(groups, { clientToken: "evening-7" });
  for await (const event of step) {
    if (event.type === "progress") console.log(`${event.done} of ${event.total} micro-batches`);
  }
  const result = await step.result; // step.abort() would end it on the server too
  // #endregion
  return result;
}

// #region module-level
let client: OpenAI; // made once, by code that knows nothing of rollouts

async function agentWithOneClient(model: RolloutModel) {
  // Inside a rollout, requests of this client belong to that rollout, however many run at once.
  client ??= new OpenAI({ ...model.connection(), fetch: model.fetch });
  await client.chat.completions.create({
    model: model.name,
    messages: [{ role: "user", content: "Say a word." }],
    max_tokens: 8,
  });
  return 0;
}
// #endregion

async function evaluating(model: Model, scenarios: { prompt: string }[]) {
  // #region evaluate
  const before = await gather(model.at(0), rollout, scenarios, { mode: "eval", groupSize: 8 });
  const after = await gather(model, rollout, scenarios, { mode: "eval", groupSize: 8 });
  console.table(compare(before, after, { metric: "length" }));
  // #endregion
}

async function splitting(tasks: { prompt: string }[]) {
  // #region split
  const { train, heldOut } = splitScenarios(tasks, { heldOut: 0.25 });
  // #endregion
  return { train, heldOut };
}

async function logged(model: Model, train: { prompt: string }[], heldOut: { prompt: string }[]) {
  // #region run-log
  const log = await openRunLog("runs/evening");
  for await (const batch of model.batches(train, { groupsPerStep: 2, steps: 3, heldOut })) {
    const step = log.step(batch);
    const groups = step.gathered(await gather(model, rollout, batch.scenarios, { groupSize: 8 }));
    const result = await model.train(groups, { batch, onEvent: step.onEvent });
    const { warnings } = await step.trained(result);
    for (const warning of warnings) console.warn(warning.message); // in words, with what to try
  }
  await log.evaluation("trained", await gather(model, rollout, heldOut, { mode: "eval" }));
  console.log(log.lines().join("\n"));
  // #endregion
}

async function filled(model: Model, train: { prompt: string }[]) {
  for await (const batch of model.batches(train, {
    ...{ groupsPerStep: 1, steps: 9, curriculum: true },
  })) {
    // #region fill
    const { groups, fill } = await fillBatch(batch, (scenarios) =>
      gather(model, rollout, scenarios, { groupSize: 8 }),
    );
    console.log(`${fill.kept} of ${fill.drawn} groups differ`);
    await model.train(groups, { batch });
    // #endregion
    break;
  }
}

async function overlapped(model: Model, train: { prompt: string }[]) {
  // #region overlap
  const batches = model.batches(train, { groupsPerStep: 1, steps: 2 });
  const play = (scenarios: readonly { prompt: string }[], { signal }: { signal: AbortSignal }) =>
    gather(model, rollout, scenarios, { groupSize: 8, signal });
  for await (const { batch, groups, overlap } of playAhead(model, batches, play)) {
    await model.train(groups, { batch }); // the next batch is played meanwhile
    console.log(`the training waited ${overlap.waitedForRollouts.toFixed(1)} s for its rollouts`);
  }
  // #endregion
}

async function table(model: Model, heldOut: { prompt: string }[], other: ComparisonModel) {
  // #region table
  const rows = evaluationTable(
    {
      base: await gather(model.at(0), rollout, heldOut, { mode: "eval", groupSize: 8 }),
      trained: await gather(model, rollout, heldOut, { mode: "eval", groupSize: 8 }),
      other: await gather(other, rollout, heldOut, { mode: "eval", groupSize: 8 }),
    },
    { by: ({ prompt }: { prompt: string }) => prompt.length }, // a row for each slice as well
  );
  console.table(rows);
  // #endregion
}

async function files(groups: TrajectoryGroup[]) {
  // #region files
  await writeGroups("groups.jsonl", groups);
  const again = await readGroups("groups.jsonl");
  // #endregion
  return again;
}

async function errors(model: Model) {
  // #region errors
  try {
    await model.train([], {});
  } catch (error) {
    if (!HoneError.isInstance(error)) throw error;
    console.error(error.code, error.param, error.message); // what happened, where, what to do
  }
  // #endregion
}

/** A step has micro-batches only where rewards differ, and an untrained model may say "yes" nowhere. */
function withVariance(groups: TrajectoryGroup[]): TrajectoryGroup[] {
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one, member) => ({ ...one, reward: member % 2 })),
  }));
}

/** Every snippet once. */
export async function run(hone: Hone): Promise<void> {
  const model = await hone.model({ name: "guide" });
  const scenarios = [{ prompt: "Say a word." }, { prompt: "Say a word." }];
  const groups = await gathering(model, scenarios);
  await files(groups);
  await training(model, groups);
  await handle(model, withVariance(await gathering(model, scenarios)));
  await gather(model, planAndAnswer, scenarios, { groupSize: 2 });
  await gather(model, selfPlay, [{ topic: "tea" }], { groupSize: 2 });
  await gather(model, agentWithOneClient, scenarios, { groupSize: 4 });
  await evaluating(model, scenarios);
  const tasks = Array.from({ length: 8 }, (_, n) => ({ prompt: `Say a word of ${n} letters.` }));
  const { train, heldOut } = await splitting(tasks);
  await logged(model, train, heldOut);
  await filled(model, train);
  await overlapped(model, train);
  const { serverURL, apiKey } = model.transport.settings;
  const other = new ComparisonModel({ baseURL: `${serverURL}/v1`, apiKey, model: model.name });
  await table(model, heldOut, other);
  await errors(model);
}
