export { errorEnvelopeSchema, wireErrorCodes } from "./error-envelope.ts";
export { healthSchema, maxBodyBytes } from "./server-info.ts";
export { serverOptionsSchema } from "./server-options.ts";
export type { OptionAdvice, OptionInForce, ServerOptionsInForce } from "./server-options.ts";
export type { Health } from "./server-info.ts";
export { errorCodes, HoneError, isErrorCode } from "./errors.ts";
export type { ErrorCode, ErrorEnvelope, HoneErrorOptions } from "./errors.ts";
export {
  clientIdSchema,
  modelNamePattern,
  modelNameSchema,
  newId,
  parseModelRef,
  policyName,
  requireModelRef,
} from "./ids.ts";
export type { IdPrefix, PolicyName } from "./ids.ts";
export {
  assistantMessageSchema,
  chatRequestSchema,
  ignoredChatKeys,
  messageText,
  responseFormatSchema,
  messageSchema,
  toolSchema,
} from "./chat.ts";
export type { AssistantMessage, ChatMessage, ChatRequest, ChatTool, ToolCall } from "./chat.ts";
export {
  chatChunkSchema,
  chatCompletionSchema,
  modelEntrySchema,
  tokenLogprobSchema,
  usageSchema,
} from "./chat-response.ts";
export type {
  ChatChoice,
  ChatChunk,
  ChatCompletion,
  FinishReason,
  ModelEntry,
  TokenLogprob,
  TopLogprob,
  Usage,
} from "./chat-response.ts";
export { responsesRequestSchema } from "./responses.ts";
export type {
  ResponsesContent,
  ResponsesItem,
  ResponsesRequest,
  ResponsesTool,
} from "./responses.ts";
export { responsesAnswerSchema, responsesEventSchema } from "./responses-response.ts";
export type { ResponsesAnswer, ResponsesEvent, ResponsesOutputItem } from "./responses-response.ts";
export { countTokensRequestSchema, messagesRequestSchema } from "./messages.ts";
export type { CountTokensRequest, MessagesRequest, MessagesTurn } from "./messages.ts";
export {
  anthropicErrorSchema,
  anthropicModelSchema,
  messagesAnswerSchema,
  messagesEventSchema,
  tokenCountSchema,
} from "./messages-response.ts";
export type {
  AnthropicError,
  AnthropicModel,
  MessagesAnswer,
  MessagesBlock,
  MessagesEvent,
  MessagesStopReason,
  TokenCount,
} from "./messages-response.ts";
export {
  completionRequestSchema,
  scoredPromptSchema,
  textChunkSchema,
  textCompletionSchema,
} from "./completion.ts";
export type { CompletionRequest, TextChunk, TextCompletion, TextLogprobs } from "./completion.ts";
export {
  createRolloutSchema,
  patchRolloutSchema,
  rewardSchema,
  rolloutInfoSchema,
  rolloutModeSchema,
  rolloutStatusSchema,
} from "./rollout.ts";
export type {
  CreateRollout,
  PatchRollout,
  RolloutInfo,
  RolloutMode,
  RolloutStatus,
} from "./rollout.ts";
export {
  createRolloutBatchSchema,
  patchRolloutBatchSchema,
  rolloutBatchItemSchema,
  rolloutBatchLimit,
  rolloutBatchSchema,
} from "./rollout-batch.ts";
export type {
  CreateRolloutBatch,
  PatchRolloutBatch,
  RolloutBatch,
  RolloutBatchItem,
} from "./rollout-batch.ts";
export {
  askedAgain,
  completionsTrainingSchema,
  groupSchema,
  isAskedAgain,
  rolloutExceptionSchema,
  trajectorySchema,
  turnSchema,
} from "./trajectory.ts";
export type {
  CompletionTraining,
  RolloutException,
  Trajectory,
  TrajectoryGroup,
  Turn,
} from "./trajectory.ts";
export { differsWithin, whyNotCompared } from "./comparison.ts";
export {
  dropReasonSchema,
  deletedModelSchema,
  deleteModelSchema,
  modelInfoSchema,
  operationEventSchema,
  operationInfoSchema,
  operationResultSchema,
  operationTypeSchema,
  chatTemplateKwargsSchema,
  putModelSchema,
  submitOperationSchema,
  supervisedResultSchema,
  trainResultSchema,
} from "./operation.ts";
export type {
  DropReason,
  DeletedModel,
  ModelInfo,
  OperationEvent,
  OperationInfo,
  OperationResult,
  OperationStatus,
  ChatTemplateKwargs,
  PutModel,
  SubmitOperation,
  SupervisedResult,
  TrainOp,
  TrainResult,
} from "./operation.ts";
export {
  clipOptionsSchema,
  correctionBoundsSchema,
  correctionOptionsSchema,
  deltaOptionsSchema,
  driftOptionsSchema,
  levelOptionsSchema,
  mismatchOptionsSchema,
  penaltyOptionsSchema,
  policyOptionsSchema,
} from "./objective-options.ts";
export {
  bnpoSchema,
  cispoSchema,
  customObjectiveSchema,
  dapoSchema,
  defaultFeedbackTemplate,
  drGrpoSchema,
  grpoSchema,
  gspoSchema,
  importanceSamplingSchema,
  looksAtWholeRollouts,
  luspoSchema,
  objectiveSchema,
  policyGradientSchema,
  rlooSchema,
  sapoSchema,
  vespoSchema,
} from "./objectives.ts";
export type { CustomObjective } from "./objectives.ts";
export {
  filtersSchema,
  optimizerSchema,
  stepOptionsSchema,
  trainConfigKeys,
  trainConfigKeysOf,
  trainConfigSchema,
} from "./train-config.ts";
export type { ResolvedTrainConfig, TrainConfig } from "./train-config.ts";
export {
  bradleyTerryConfigSchema,
  bradleyTerryObjectiveSchema,
  conversationSchema,
  dpoConfigSchema,
  dpoObjectiveSchema,
  exampleSchema,
  pairSchema,
  sftConfigSchema,
  sftObjectiveSchema,
} from "./supervised.ts";
export type {
  BradleyTerryConfig,
  BradleyTerryOp,
  Conversation,
  ConversationPair,
  DpoConfig,
  DpoOp,
  Example,
  Pair,
  SftConfig,
  SftOp,
} from "./supervised.ts";
export {
  forwardBackwardOpSchema,
  forwardOpSchema,
  optimStepOpSchema,
  readByLoss,
} from "./primitives.ts";
export type {
  Datum,
  ForwardBackwardOp,
  ForwardOp,
  ForwardResult,
  OptimStepConfig,
  OptimStepOp,
  OptimStepResult,
  TokenLoss,
} from "./primitives.ts";
export {
  gcReportSchema,
  gcRequestSchema,
  keepReasonSchema,
  keepSchema,
  patchPolicySchema,
  policyDetailSchema,
  policyInfoSchema,
} from "./policy.ts";
export type { GcReport, GcRequest, Keep, KeepReason, PolicyDetail, PolicyInfo } from "./policy.ts";
export {
  completionListSchema,
  completionRecordSchema,
  listOperationsSchema,
  listRolloutsSchema,
  modelListSchema,
  operationListSchema,
  operationSummarySchema,
  policyListSchema,
  rolloutListSchema,
  rolloutSummarySchema,
  rotatedKeySchema,
} from "./listing.ts";
export type {
  CompletionList,
  CompletionRecord,
  ListOperations,
  ListRollouts,
  OperationList,
  OperationSummary,
  RolloutList,
  RolloutSummary,
  RotatedKey,
} from "./listing.ts";
export {
  engineInfoSchema,
  engineListSchema,
  engineNameSchema,
  engineTokenRequestSchema,
  engineTokenSchema,
  removedEngineSchema,
} from "./engines.ts";
export type {
  EngineInfo,
  EngineList,
  EngineToken,
  EngineTokenRequest,
  RemovedEngine,
} from "./engines.ts";
export {
  rewardModelListSchema,
  rewardModelSchema,
  scoreRequestSchema,
  scoresSchema,
  tooLongSchema,
} from "./score.ts";
export type {
  ResolvedScoreRequest,
  RewardModelInfo,
  RewardModelList,
  ScoreItem,
  ScoreRequest,
  Scores,
} from "./score.ts";
export { kindOf, refuseUnknownOptions, requireObject, wrongKind } from "./known-options.ts";
export { numberReader, requireNumber } from "./number-range.ts";
export { hiddenKey, hideKey } from "./hidden-key.ts";
export {
  branchFaults,
  clearestIssue,
  issuePath,
  issueText,
  issueWords,
  pathText,
} from "./issue-text.ts";
export { mulberry32, shuffledIndices } from "./random.ts";
export { printable, printableBlock, printableLine } from "./printable.ts";
export { wellFormedJson, wellFormedSteps } from "./well-formed-json.ts";
export { readProviderAnswer } from "./provider-answer.ts";
export type { ProviderAnswer } from "./provider-answer.ts";
export {
  assistantMessage,
  readSaid,
  shown as namedPart,
  toChatMessage,
} from "./provider-message.ts";
export type { Said, SaidCall } from "./provider-message.ts";
export { ProviderStream } from "./provider-stream.ts";
export { readProviderRequest } from "./provider-request.ts";
export type { ProviderRequest } from "./provider-request.ts";
