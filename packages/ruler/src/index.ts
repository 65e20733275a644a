export { rulerScoreGroup } from "./score-group.ts";
export type { ScoredGroup, ScoreGroupOptions } from "./score-group.ts";
export { ruler } from "./ruler.ts";
export type { RulerOptions } from "./ruler.ts";
export type { JudgedMembers, Judgement, MemberScore } from "./judgement.ts";
export type { Judge, JudgeEndpoint, StructuredOutput } from "./judge-target.ts";
export type { JudgeOptions } from "./settings.ts";
export { JudgeError } from "./judge-error.ts";
export type { JudgeFailure } from "./judge-error.ts";
export { JudgeBudget } from "./budget.ts";
export { listPrices } from "./prices.ts";
export type { Price } from "./prices.ts";
export {
  codeRubric,
  defaultRubric,
  gameRubric,
  searchAgentRubric,
  supportEmailRubric,
} from "./rubrics.ts";
