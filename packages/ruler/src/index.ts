export { rulerScoreGroup } from "./judging/score-group.ts";
export type { ScoredGroup, ScoreGroupOptions } from "./judging/score-group.ts";
export { ruler } from "./judging/ruler.ts";
export type { RulerOptions } from "./judging/ruler.ts";
export type { JudgedMembers, JudgedPass, Judgement, MemberScore } from "./judging/judgement.ts";
export type { Judge, JudgeEndpoint, StructuredOutput } from "./judge/judge-target.ts";
export type { JudgeOptions } from "./judging/settings.ts";
export { JudgeError } from "./judge/judge-error.ts";
export type { JudgeFailure } from "./judge/judge-error.ts";
export { JudgeBudget } from "./judge/budget.ts";
export { listPrices } from "./judge/prices.ts";
export type { Price } from "./judge/prices.ts";
export {
  codeRubric,
  defaultRubric,
  gameRubric,
  searchAgentRubric,
  supportEmailRubric,
} from "./prompt/rubrics.ts";
