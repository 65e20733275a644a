export { combinedScore, examineJudges, judgeReport } from "./doctor/examine.ts";
export type { DoctorOptions, JudgeReport } from "./doctor/examine.ts";
export type { ExaminedJudge, GroupJudging, JudgeFunction } from "./doctor/judge.ts";
export { functionJudge, namedJudge, rewardModelJudge, rulerJudge } from "./doctor/judges.ts";
export type { JudgeNames, RulerJudgeOptions } from "./doctor/judges.ts";
export { reportText } from "./doctor/report-text.ts";
export type { Estimate } from "./doctor/statistics.ts";
export { thresholds } from "./doctor/verdict.ts";
export type { Verdict } from "./doctor/verdict.ts";
