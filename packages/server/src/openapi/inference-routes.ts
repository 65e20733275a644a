import type { ErrorCode } from "@hone/core";
import type { AnswerDoc, HeaderDoc, RouteDoc } from "./route-doc.ts";
import type { SchemaName } from "./schemas.ts";

const policyHeader: HeaderDoc = {
  name: "x-hone-policy",
  description:
    "The policy that was sampled from, `name@N`, percent-encoded outside of ASCII; it stands in `model` too.",
  type: "string",
};
const engineHeader: HeaderDoc = {
  name: "x-hone-engine",
  description: "The engine that sampled the answer, as `GET /health` names it.",
  type: "string",
};
const cutHeader: HeaderDoc = {
  name: "x-hone-max-tokens",
  description:
    "Only where more tokens were asked for than the context has room for: how many the answer could have.",
  type: "integer",
};
const retryHeader: HeaderDoc = {
  name: "x-stainless-retry-count",
  description:
    "Above 0: this repeats a request whose answer was not received. openai-node and openai-python send it. " +
    "Under a rollout the answer before is then recorded and not trained.",
  type: "integer",
};

function sampledAnswer(whole: SchemaName, chunk: SchemaName): AnswerDoc {
  return {
    status: 200,
    description: "The answer; with `stream: true` server-sent events.",
    headers: [policyHeader, engineHeader, cutHeader],
    json: whole,
    events: {
      data: chunk,
      description:
        "Each event's `data` is a chunk as JSON. The last event is `data: [DONE]`. A failure after the first " +
        "chunk is an event whose `data` is the error envelope, and no [DONE].",
    },
  };
}

const samplingErrors: readonly ErrorCode[] = [
  "context_length_exceeded",
  "model_not_found",
  "policy_not_found",
  "aborted",
  "engine_error",
  "engine_busy",
  "engine_unavailable",
  "renderer_unavailable",
];
const rolloutErrors: readonly ErrorCode[] = [
  "rollout_not_found",
  "rollout_closed",
  "model_mismatch",
];

function dialect(prefix: string, owner: "" | "rollout"): RouteDoc[] {
  const under = owner === "" ? "" : "Rollout";
  const errors = owner === "" ? samplingErrors : [...samplingErrors, ...rolloutErrors];
  const recorded =
    owner === ""
      ? ""
      : " Recorded as a completion of the rollout, whose policy it is sampled from.";
  return [
    {
      method: "post",
      path: `${prefix}/chat/completions`,
      tag: "inference",
      operationId: `create${under}ChatCompletion`,
      summary: `A chat completion${owner === "" ? "" : " of a rollout"}`,
      description: `OpenAI's chat dialect. A key that is not in the schema is refused.${recorded}`,
      headers: [retryHeader],
      body: "ChatRequest",
      answers: [sampledAnswer("ChatCompletion", "ChatChunk")],
      errors,
    },
    {
      method: "post",
      path: `${prefix}/completions`,
      tag: "inference",
      operationId: `create${under}Completion`,
      summary: `A completion of a plain prompt${owner === "" ? "" : ", of a rollout"}`,
      description:
        "OpenAI's legacy dialect: no template. The prompt is a text or token ids, one a request. " +
        `\`max_tokens\` is 16 where it is left out.${recorded}`,
      headers: [retryHeader],
      body: "CompletionRequest",
      answers: [sampledAnswer("Completion", "CompletionChunk")],
      errors,
    },
    {
      method: "post",
      path: `${prefix}/responses`,
      tag: "inference",
      operationId: `create${under}Response`,
      summary: `An answer in OpenAI's Responses${owner === "" ? "" : ", of a rollout"}`,
      description: `Stateless: the input holds the items so far. A key that is not in the schema is refused.${recorded}`,
      headers: [retryHeader],
      body: "ResponsesRequest",
      answers: [
        {
          status: 200,
          description: "The answer; with `stream: true` server-sent events.",
          headers: [policyHeader, cutHeader],
          json: "ResponsesAnswer",
          events: {
            data: "ResponsesEvent",
            description:
              "Each event's name is the `type` of its `data`. The last one is `response.completed` or `response.incomplete`, or `error` in their place.",
          },
        },
      ],
      errors,
    },
    {
      method: "post",
      path: `${prefix}/messages`,
      tag: "inference",
      operationId: `create${under}Message`,
      summary: `An answer in Anthropic's Messages${owner === "" ? "" : ", of a rollout"}`,
      description: `Anthropic's dialect, errors included. A key that is not in the schema is refused.${recorded}`,
      headers: [retryHeader],
      body: "MessagesRequest",
      answers: [
        {
          status: 200,
          description: "The answer; with `stream: true` server-sent events.",
          headers: [policyHeader, cutHeader],
          json: "MessagesAnswer",
          events: {
            data: "MessagesEvent",
            description:
              "Each event's name is the `type` of its `data`. The last one is `message_stop`, or `error` in its place.",
          },
        },
      ],
      errors,
      errorShape: "AnthropicError",
    },
    {
      method: "post",
      path: `${prefix}/messages/count_tokens`,
      tag: "inference",
      operationId: `count${under}MessageTokens`,
      summary: "How many tokens the prompt of such a request has",
      description: "Exact: the prompt is made, and nothing is sampled.",
      body: "CountTokensRequest",
      answers: [{ status: 200, description: "The count.", json: "TokenCount" }],
      errors: errors.filter((code) => !code.startsWith("engine")),
      errorShape: "AnthropicError",
    },
    {
      method: "get",
      path: `${prefix}/models`,
      tag: "inference",
      operationId: `list${under}Models`,
      summary: "The names that requests may ask for",
      description:
        "The base, every model as an alias of its newest policy, and every served policy. With the header " +
        "`anthropic-version` in Anthropic's shape: a page of AnthropicModel, by `limit`, `after_id` and `before_id`.",
      answers: [{ status: 200, description: "The names.", json: "ModelEntryList" }],
      errors: [],
    },
    {
      method: "get",
      path: `${prefix}/models/{model}`,
      tag: "inference",
      operationId: `get${under}Model`,
      summary: "One of those names",
      description: "With the header `anthropic-version` an AnthropicModel.",
      answers: [{ status: 200, description: "The name.", json: "ModelEntry" }],
      errors: ["model_not_found"],
    },
  ];
}

export const inferenceRoutes: readonly RouteDoc[] = [
  ...dialect("/v1", ""),
  ...dialect("/v1/rollouts/{rollout}/v1", "rollout"),
  {
    method: "post",
    path: "/v1/score",
    tag: "inference",
    operationId: "createScores",
    summary: "What a reward model thinks of conversations or texts",
    description:
      "Sequence classifiers that the operator named with `serve --reward-model`, and models whose head " +
      "`bradley_terry` trained, as `name` or `name@N`. Conversations are rendered by the chat template of the classifier " +
      "or of the base; a plain text gets the special tokens that its tokenizer adds.",
    body: "ScoreRequest",
    answers: [{ status: 200, description: "A score for each item.", json: "Scores" }],
    errors: [
      "context_length_exceeded",
      "model_not_found",
      "policy_not_found",
      "base_mismatch",
      "bad_adapter",
      "renderer_unavailable",
      "aborted",
      "internal_error",
      "worker_unavailable",
    ],
  },
  {
    method: "get",
    path: "/v1/reward-models",
    tag: "inference",
    operationId: "listRewardModels",
    summary: "The reward models of this server",
    answers: [{ status: 200, description: "The models.", json: "RewardModelList" }],
    errors: ["worker_unavailable"],
  },
];
