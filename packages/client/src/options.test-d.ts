// Checked by tsc, never run: each wrong line must be an error, or its directive is one.
import { compare, gather, GatherError, Hone } from "./index.ts";
import type { ErrorCode, Model, RolloutModel, Trajectory } from "./index.ts";

declare const model: Model;
const scenarios = [{ seed: 1 }];
const rollout = async (_: RolloutModel, scenario: { seed: number }) => ({ reward: scenario.seed });

export async function rightOptions(): Promise<void> {
  const hone = new Hone({ baseURL: "http://h", timeoutMs: undefined });
  await hone.model({ name: "m", base: "tiny", lora: { r: 8 } });
  for await (const batch of model.batches(scenarios, { groupsPerStep: 1, steps: 2 })) {
    const groups = await gather(model, rollout, batch.scenarios, { groupSize: 2, mode: "train" });
    const result = await model.train(groups, { batch, learningRate: 1e-3, scaleRewards: "group" });
    result.trained satisfies boolean;
    const handle = model.startTrain(groups);
    for await (const event of handle) if (event.type === "stage") event.seconds satisfies number;
  }
  await gather(model.at(0), () => null, scenarios, { mode: "eval" });
}

export async function wrongOptions(): Promise<void> {
  // @ts-expect-error a misspelt option
  const hone = new Hone({ baseUrl: "http://h" });
  // @ts-expect-error the name is missing
  await hone.model({ base: "tiny" });
  // @ts-expect-error the rank stands under lora
  await hone.model({ name: "m", r: 8 });
  // @ts-expect-error Python's spelling
  await model.train([], { learning_rate: 1 });
  // @ts-expect-error not a way to scale rewards
  await model.train([], { scaleRewards: "rollout" });
  // @ts-expect-error steps is missing
  model.batches(scenarios, { groupsPerStep: 1 });
  // @ts-expect-error a misspelt option
  await gather(model, rollout, scenarios, { groupsize: 2 });
  // @ts-expect-error no such mode
  await gather(model, rollout, scenarios, { mode: "test" });
  // @ts-expect-error scenarios of another type than the rollout takes
  await gather(model, rollout, ["x"]);
  // @ts-expect-error a rollout that returns no reward
  await gather(model, async () => {}, scenarios);
  // @ts-expect-error a reward that is a text
  await gather(model, () => ({ reward: "1" }), scenarios);
  // @ts-expect-error an old policy does not train
  await model.at(1).train([]);
  // @ts-expect-error a misspelt option
  compare([], [], { metrics: "score" });
}

export async function whatAClientIsGiven(given: RolloutModel): Promise<void> {
  const { model: name, ...connection } = given.connection();
  name satisfies string;
  connection.apiKey satisfies string;
  const groups = await gather(model, rollout, scenarios);
  groups[0]?.exceptions[0]?.stack satisfies string | undefined;
  const failure = new GatherError("m", { code: "too_many_exceptions", groups });
  failure.groups satisfies typeof groups;
  "rollout_mismatch" satisfies ErrorCode;
  const pending = gather(model, rollout, scenarios);
  // @ts-expect-error groups are awaited first
  await model.train(pending);
  // @ts-expect-error a model is asked for by an object
  await new Hone().model("x");
  await new Hone().model({ name: "m", chatTemplateKwargs: { enable_thinking: false } });
  // @ts-expect-error an argument of a template is a text, a number or a boolean
  await new Hone().model({ name: "m", chatTemplateKwargs: { enable_thinking: null } });
  // @ts-expect-error a name that may be missing
  await new Hone().model({ name: undefined });
}

export function trajectoryIsData(trajectory: Trajectory): void {
  trajectory.reward satisfies number | null;
  trajectory.usage.constrained satisfies number | undefined;
  // @ts-expect-error a reward may be missing
  trajectory.reward satisfies number;
}
