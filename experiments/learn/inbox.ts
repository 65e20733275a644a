// The inbox task as examples/inbox has it: its mails, its rollout, its reward.
import { HoneError } from "@hone/client";
import type { Mail } from "../../examples/inbox/src/bills.ts";
import { example, heldOut, rollout, system, train } from "../../examples/inbox/src/task.ts";
import type { LearnTask } from "./task.ts";

export function inboxTask(base: string | undefined): LearnTask<Mail> {
  if (base === undefined) {
    throw new HoneError("The inbox task needs SmolLM2: `pnpm experiment learn` brings it.", {
      code: "invalid_config",
      param: "base",
    });
  }
  const temperature = 0.7;
  return {
    name: "inbox",
    base,
    dtype: "bfloat16",
    settings: {
      steps: 16,
      groupsPerStep: 8,
      groupSize: 6,
      learningRate: 3e-4,
      warmupSteps: 3,
      scaleRewards: "none",
      temperature,
      maxTokens: 48,
      judgeEvery: 2,
      // All 48 at once take 16 GB.
      trlRows: 16,
    },
    // In their order, whatever the seed: each step has mails of every kind.
    train: () => train,
    heldOut,
    messages: ({ text }) => [
      { role: "system", content: system },
      ...example,
      { role: "user", content: text },
    ],
    key: ({ bill }) => ({ kind: "bill", bill }),
    rollout: (model, mail) => rollout(model, mail, { temperature, answerTokens: 48 }),
    judging: {
      rollout: (model, mail) => rollout(model, mail, { temperature: 0, answerTokens: 48 }),
      metric: "exact",
      label: "share of the held-out mails read exactly, greedy",
    },
    references: [],
  };
}
