// The code of docs/stopping.md.
import type { Trajectory } from "@hone/client";
import { defineTask, pausedRun, setAside, trainRun } from "@hone/client/run";
import task from "./own-task.ts";

declare const reader: (answer: string) => Promise<{ score: number; costUsd: number }>;

// #region held-out-judge
export const watched = defineTask({
  ...task,
  // Never trains: it is asked about 32 rollouts of each step, and about all held-out answers.
  heldOutJudge: async (trajectory) => await reader(textOf(trajectory)),
});
// #endregion

function textOf({ messages }: Trajectory): string {
  const content = messages.at(-1)?.content;
  return typeof content === "string" ? content : "";
}

// #region options
export const summary = await trainRun(watched, {
  name: "orders",
  steps: 200,
  evalEvery: 5,
  goals: { target: 0.9, winRate: 0.8, secondary: { length: 40 } },
  stopWhen: ["target", "plateau"],
  onAlarm: "pause",
  budget: { usd: 5, usdPerHour: 2.5, gpuSeconds: 7200 },
});
// #endregion

// #region paused
const out = "runs/orders";
const paused = await pausedRun(out);
if (paused) {
  console.log(paused.alarms, paused.suspicious);
  await setAside(out, { suspicious: true });
  // With the reward mended; without acceptChange it goes on with the rollouts that wait.
  await trainRun(watched, { name: "orders", out, acceptChange: true });
}
// #endregion
