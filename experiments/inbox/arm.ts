import { gather, type Hone, type TrajectoryGroup } from "@hone/client";
import type { Mail } from "../../examples/inbox/src/bills.ts";
import inbox, { example, rollout, system, train } from "../../examples/inbox/src/task.ts";

/** How one model is trained: on demonstrations, then on rewards. */
export interface Arm {
  name: string;
  /** Mails with their right answers, each seen once. */
  demonstrations: number;
  /** Steps on rewards after that, each of 8 mails × 6 rollouts. */
  steps: number;
}

export const rolloutsOfStep = 48;

/** On a busy machine an answer waits long for its turn. */
const timeoutMs = 3_600_000;

/** Trains one model, and gives its name. */
export async function trainArm(hone: Hone, arm: Arm, seed: number): Promise<string> {
  const model = await hone.model({ name: `${arm.name}-${seed}`, seed });
  const { groupsPerStep = 8, learningRate, schedule, train: options } = inbox.options ?? {};
  if (arm.demonstrations > 0) {
    // From the end: the rewards come from the beginning, and no mail serves twice.
    const shown = train.slice(-arm.demonstrations).map(demonstration);
    const { warmupSteps = 3 } = options ?? {};
    await model.sft(shown, { batchSize: 16, learningRate, schedule, warmupSteps, seed });
  }
  const plan = { groupsPerStep, steps: arm.steps, seed, shuffle: false };
  for await (const batch of arm.steps > 0 ? model.batches(train, plan) : []) {
    const groups = await gather(
      model,
      (one, mail) => rollout(one, mail, how(0.7)),
      batch.scenarios,
      {
        groupSize: rolloutsOfStep / groupsPerStep,
        concurrency: rolloutsOfStep,
        timeoutMs,
      },
    );
    const { metrics } = await model.train(groups, { ...options, learningRate, schedule, batch });
    const rewards = groups.flatMap(({ trajectories }) =>
      trajectories.map(({ reward }) => reward ?? 0),
    );
    const reward = rewards.reduce((sum, one) => sum + one, 0) / rewards.length;
    const entropy = metrics["entropy"]?.toFixed(3) ?? "none";
    console.log(
      `${arm.name}, seed ${seed}, step ${batch.trained + 1}: reward ${reward.toFixed(3)}, entropy ${entropy}`,
    );
  }
  return `${arm.name}-${seed}`;
}

/** Mails, answered greedily by the newest policy of a model. One that is new is the base. */
export async function answer(
  hone: Hone,
  name: string,
  mails: readonly Mail[] = inbox.heldOut,
): Promise<TrajectoryGroup[]> {
  const model = await hone.model({ name });
  return await gather(model, (one, mail) => rollout(one, mail, how(0)), [...mails], {
    ...{ groupSize: 1, mode: "eval", concurrency: 64, timeoutMs },
  });
}

const how = (temperature: number) => ({ temperature, answerTokens: 48 });

function demonstration({ text, bill }: Mail) {
  const { name, amount, due } = bill;
  const answered = `{"name": "${name}", "amount": ${amount.toFixed(2)}, "due": "${due}"}`;
  return {
    messages: [
      { role: "system" as const, content: system },
      // Given in each prompt, and not to be learnt.
      ...example.map((message) =>
        message.role === "assistant" ? { ...message, weight: 0 as const } : message,
      ),
      { role: "user" as const, content: text },
      { role: "assistant" as const, content: answered },
    ],
  };
}
