export { ScriptedJudge } from "./scripted-judge.ts";
export type { JudgeRequest, ScriptedJudgeOptions } from "./scripted-judge.ts";
export {
  answer,
  answerText,
  cutBody,
  garbage,
  hangUp,
  httpError,
  partialJson,
  quotaExhausted,
  refusal,
  score,
  silence,
  tooManyRequests,
  wrongIds,
} from "./judge-steps.ts";
export type { JudgeStep, Score, Scorer, StepUsage } from "./judge-steps.ts";
export { readJudgePrompt } from "./judge-prompt.ts";
export type { ShownAttempt, ShownPrompt } from "./judge-prompt.ts";
