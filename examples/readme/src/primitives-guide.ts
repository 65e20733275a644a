// The snippets of docs/primitives.md. `run` goes through all of them against a live server.
import type { Datum, Hone, Model } from "@hone/client";

async function reinforcing(model: Model, score: (text: string) => number) {
  // #region loop
  for (let step = 0; step < 4; step++) {
    const { promptIds, samples } = await model.sample("2", { n: 16, maxTokens: 12, seed: step });
    const rewards = samples.map(({ text }) => score(text));
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;

    const data = samples.map(({ ids, logprobs }, at): Datum => {
      const sequence = [...promptIds, ...ids];
      const prompt = promptIds.slice(1).map(() => 0); // nothing of the prompt is learnt
      return {
        tokens: sequence.slice(0, -1),
        targets: sequence.slice(1),
        logprobs: [...prompt, ...logprobs],
        advantages: [...prompt, ...ids.map(() => (rewards[at]! - mean) / samples.length)],
      };
    });
    await model.forwardBackward(data, { loss: "importance_sampling" });
    const { policy } = await model.optimStep({ learningRate: 1e-3 });
    console.log(policy, mean);
  }
  // #endregion
}

async function accumulating(model: Model, parts: Datum[][]) {
  // #region accumulate
  const calls = parts.map((part, at) => model.forwardBackward(part, { fresh: at === 0 }));
  const step = model.optimStep({ learningRate: 1e-3, accumulated: parts.length });
  const [{ policy }, ...results] = await Promise.all([step, ...calls]);
  console.log(results.map(({ loss }) => loss));
  await model.save(); // this policy is not removed
  // #endregion
  return policy;
}

export async function run(hone: Hone): Promise<void> {
  const model = await hone.model({ name: "own-loop" });
  await reinforcing(model, (text) => text.length % 5);
  const { promptIds } = await model.sample("The hat is red.", { maxTokens: 1 });
  const part = [{ tokens: promptIds.slice(0, -1), targets: promptIds.slice(1) }];
  console.log(`kept ${await accumulating(model, [part, part])}`);
}
