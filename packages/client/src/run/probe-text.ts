import { figure } from "./reporter.ts";
import { durationText } from "./summary-text.ts";
import type { ProbeReport } from "./probe.ts";
import { percent } from "../stopping/figure-text.ts";
import type { ProbeVerdict } from "./probe-verdict.ts";

const verdicts: Record<ProbeVerdict, string> = {
  go: "Go: there is something to learn from.",
  change_the_prompt: "Change the prompt first.",
  change_the_reward: "Change the reward first.",
  no_go: "No go.",
};

/** The report as the terminal shows it. */
export function probeText(report: ProbeReport): string {
  const { figures, noise, measured, estimate } = report;
  const { reward, pass, varied, length } = figures;
  const seconds = (value: number) => `${value.toFixed(1)} s`;
  const rows: [string, string][] = [
    ["base", report.base],
    [
      "rollouts",
      `${figures.rollouts} of ${figures.groups} scenarios${figures.failed > 0 ? `, ${figures.failed} more failed` : ""}`,
    ],
    [
      "reward",
      reward
        ? `${figure(reward.mean)} (${figure(reward.least)} to ${figure(reward.most)})`
        : "none",
    ],
    ...(pass
      ? ([
          ["pass@1", `${percent(pass.at1)} (${pass.metric} of at least ${pass.at})`],
          [`pass@${pass.k}`, percent(pass.atK)],
        ] as [string, string][])
      : ([["pass@1", `not known: ${figures.whyNoPass}`]] as [string, string][])),
    ["rewards differ", `in ${varied.groups} of ${varied.of} groups`],
    [
      "a rollout",
      `${length.turns.toFixed(1)} turns, ${length.promptTokens.toFixed(0)} tokens read, ${length.completionTokens.toFixed(0)} sampled`,
    ],
    ["cut answers", percent(figures.cut)],
    ["judge's noise", noise === null ? "not measured" : percent(noise)],
    [
      "measured",
      [
        ...(measured.warmingUp > 0 ? [`warmed up ${seconds(measured.warmingUp)}`] : []),
        `played ${seconds(measured.playing)}`,
        ...(measured.scoring > 0 ? [`judged ${seconds(measured.scoring)}`] : []),
        measured.training === null ? "no step trained" : `a step ${seconds(measured.training)}`,
      ].join(", "),
    ],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return [
    "",
    ...rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`),
    "",
    verdicts[report.verdict],
    ...report.reasons.map((reason) => `  - ${reason}`),
    "",
    ...estimateLines(estimate),
  ].join("\n");
}

function estimateLines(estimate: ProbeReport["estimate"]): string[] {
  const { steps, rollouts, evaluationRollouts, hours, machineUsd, judgeUsd } = estimate;
  const count = (value: number) => value.toLocaleString("en");
  const without = estimate.withTraining ? "" : ", training not counted";
  return [
    `A run of ${steps} steps: ${count(rollouts)} rollouts (${count(evaluationRollouts)} of them to evaluate),`,
    `  ${count(estimate.promptTokens)} tokens read and ${count(estimate.completionTokens)} sampled, about ${durationText(hours * 3600)}${without}`,
    ...(machineUsd === null ? [] : [`  the machine: about $${machineUsd.toFixed(2)}`]),
    ...(judgeUsd === null ? [] : [`  the judge: about $${judgeUsd.toFixed(2)}`]),
    "  (reckoned from these rollouts; lengths change while a model learns)",
  ];
}
