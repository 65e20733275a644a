import { gather, Hone, type RolloutModel } from "@hone/client";
import OpenAI from "openai";

// One episode: any agent, any framework. This one is asked for a word and rewarded for "yes".
async function rollout(model: RolloutModel, scenario: { prompt: string }) {
  const { model: name, ...connection } = model.connection(); // this rollout's own base URL
  const client = new OpenAI(connection);
  const completion = await client.chat.completions.create(
    { model: name, messages: [{ role: "user", content: scenario.prompt }], max_tokens: 8 },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  return { reward: answer.trim() === "yes" ? 1 : 0, metrics: { length: answer.length } };
}

const hone = new Hone(); // HONE_URL and HONE_API_KEY, or the server of this machine
const model = await hone.model({ name: "yes-sayer" });
const scenarios = Array.from({ length: 8 }, () => ({ prompt: "Say a word." }));

for await (const batch of model.batches(scenarios, { groupsPerStep: 4, steps: 12 })) {
  const groups = await gather(model, rollout, batch.scenarios, { groupSize: 16, concurrency: 64 });
  const result = await model.train(groups, {
    batch,
    learningRate: 5e-3, // a tiny model; keep the default of 1e-4 for 0.5–8B
    warmupSteps: 0,
    normalizerTokens: 2,
    scaleRewards: "group",
  });
  if (!result.trained) console.warn("trained nothing:", result.reasons);
  console.log(`step ${result.step}: reward ${result.metrics["reward"]?.toFixed(2)}`);
}

const before = await gather(model.at(0), rollout, scenarios, { mode: "eval", groupSize: 8 });
const after = await gather(model, rollout, scenarios, { mode: "eval", groupSize: 8 });
const mean = (groups: typeof after) => {
  const rewards = groups.flatMap((group) => group.trajectories.map((t) => t.reward ?? 0));
  return rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
};
console.log(`says yes: ${mean(before).toFixed(2)} before, ${mean(after).toFixed(2)} after`);
