import type { ErrorCode } from "@hone/core";
import type { RouteDoc } from "./route-doc.ts";

const queryErrors: readonly ErrorCode[] = [
  "invalid_request",
  "unsupported_parameter",
  "model_not_found",
];

export const trainingRoutes: readonly RouteDoc[] = [
  {
    method: "put",
    path: "/v1/models/{model}",
    tag: "models",
    operationId: "putModel",
    summary: "Creates a model, or finds it",
    description:
      "`base` asserts what the server serves; it does not choose. A model that is there is answered as it is, " +
      "and refused where the request says other options.",
    body: "PutModel",
    answers: [{ status: 200, description: "The model.", json: "Model" }],
    errors: [
      "base_mismatch",
      "model_mismatch",
      "model_deleted",
      "bad_adapter",
      "train_failed",
      "engine_error",
      "engine_unavailable",
      "disk_full",
    ],
  },
  {
    method: "delete",
    path: "/v1/models/{model}",
    tag: "models",
    operationId: "deleteModel",
    summary: "Deletes a model with its policies, rollouts and operations",
    description:
      "Answers when the model and its files are gone; rollouts and operations leave the database in the " +
      "background, also after a restart. Deleting it again is answered alike. Its name is not used again: " +
      "creating a model of that name is a 409 `model_deleted`.",
    query: "DeleteModel",
    answers: [{ status: 200, description: "It is gone.", json: "DeletedModel" }],
    errors: [
      "invalid_request",
      "unsupported_parameter",
      "model_not_found",
      "model_busy",
      "disk_full",
    ],
  },
  {
    method: "get",
    path: "/v1/models/{model}/state",
    tag: "models",
    operationId: "getModelState",
    summary: "Learnt and served policy, dataset cursor",
    answers: [{ status: 200, description: "The model.", json: "Model" }],
    errors: ["model_not_found"],
  },
  {
    method: "get",
    path: "/v1/models/{model}/policies",
    tag: "models",
    operationId: "listPolicies",
    summary: "The model's policies",
    answers: [{ status: 200, description: "Its policies, oldest first.", json: "PolicyList" }],
    errors: ["model_not_found"],
  },
  {
    method: "get",
    path: "/v1/states",
    tag: "models",
    operationId: "listModelStates",
    summary: "Every model with its learnt and served policy",
    answers: [{ status: 200, description: "The models.", json: "ModelList" }],
    errors: [],
  },
  {
    method: "get",
    path: "/v1/models/{model}/policies/{step}",
    tag: "models",
    operationId: "getPolicy",
    summary: "A policy with its metrics, files and evaluations",
    answers: [{ status: 200, description: "The policy.", json: "PolicyDetail" }],
    errors: ["invalid_request", "model_not_found", "policy_not_found"],
  },
  {
    method: "patch",
    path: "/v1/models/{model}/policies/{step}",
    tag: "models",
    operationId: "patchPolicy",
    summary: "Pins a policy, so that retention leaves it, or unpins it",
    body: "PatchPolicy",
    answers: [{ status: 200, description: "The policy.", json: "Policy" }],
    errors: ["model_not_found", "policy_not_found", "disk_full"],
  },
  {
    method: "get",
    path: "/v1/models/{model}/policies/{step}/files/{name}",
    tag: "models",
    operationId: "getPolicyFile",
    summary: "A file of a policy",
    description:
      "The adapter in PEFT's format, the optimizer, the manifest with the SHA-256 of each.",
    answers: [{ status: 200, description: "The file.", bytes: true }],
    errors: ["invalid_request", "not_found", "model_not_found", "policy_not_found"],
  },
  {
    method: "get",
    path: "/v1/models/{model}/rollouts",
    tag: "rollouts",
    operationId: "listRollouts",
    summary: "The model's rollouts, newest first",
    query: "ListRollouts",
    answers: [{ status: 200, description: "A page of them.", json: "RolloutList" }],
    errors: queryErrors,
  },
  {
    method: "post",
    path: "/v1/rollouts",
    tag: "rollouts",
    operationId: "createRollout",
    summary: "Begins a rollout",
    description:
      "Its `baseURL` is for any OpenAI-compatible SDK: every completion under it belongs to the rollout. With an " +
      "`id` of its own a repeated request makes no second rollout.",
    body: "CreateRollout",
    answers: [{ status: 200, description: "The rollout.", json: "Rollout" }],
    errors: ["model_not_found", "policy_not_found", "rollout_exists", "disk_full"],
  },
  {
    method: "post",
    path: "/v1/batch/rollouts",
    tag: "rollouts",
    operationId: "createRollouts",
    summary: "Begins several rollouts",
    description:
      "As `POST /v1/rollouts` for each. One that is refused has an `error` and leaves the others alone.",
    body: "CreateRolloutBatch",
    answers: [
      { status: 200, description: "A rollout or an error for each.", json: "RolloutBatch" },
    ],
    errors: [],
  },
  {
    method: "patch",
    path: "/v1/batch/rollouts",
    tag: "rollouts",
    operationId: "patchRollouts",
    summary: "Ends several rollouts, and hands out what they left",
    description:
      "As `PATCH /v1/rollouts/{id}` for each, and with `trajectories` its trajectory in the same answer. One " +
      "that is refused has an `error` and leaves the others alone.",
    body: "PatchRolloutBatch",
    answers: [
      { status: 200, description: "A rollout or an error for each.", json: "RolloutBatch" },
    ],
    errors: [],
  },
  {
    method: "get",
    path: "/v1/rollouts/{id}",
    tag: "rollouts",
    operationId: "getRollout",
    summary: "A rollout's state",
    answers: [{ status: 200, description: "The rollout.", json: "Rollout" }],
    errors: ["rollout_not_found"],
  },
  {
    method: "patch",
    path: "/v1/rollouts/{id}",
    tag: "rollouts",
    operationId: "patchRollout",
    summary: "Reward, metrics, end; renews the lease",
    description:
      "Every call renews the lease, an empty body too. `metrics` and `metadata` are merged with what is there, " +
      "`logs` replaces it. An end cannot be taken back.",
    body: "PatchRollout",
    answers: [{ status: 200, description: "The rollout.", json: "Rollout" }],
    errors: ["rollout_not_found", "rollout_closed", "invalid_reward", "disk_full"],
  },
  {
    method: "get",
    path: "/v1/rollouts/{id}/trajectory",
    tag: "rollouts",
    operationId: "getTrajectory",
    summary: "What the rollout left: messages, reward, usage",
    description:
      "From the ledger. A plain prompt is a user message with its text; what a later prompt adds is another one.",
    answers: [{ status: 200, description: "The trajectory.", json: "Trajectory" }],
    errors: ["rollout_not_found"],
  },
  {
    method: "get",
    path: "/v1/rollouts/{id}/completions",
    tag: "rollouts",
    operationId: "listCompletions",
    summary: "What was sampled: token ids, logprobs, messages",
    answers: [{ status: 200, description: "The completions in order.", json: "CompletionList" }],
    errors: ["rollout_not_found"],
  },
  {
    method: "get",
    path: "/v1/models/{model}/operations",
    tag: "operations",
    operationId: "listOperations",
    summary: "The model's operations, newest first",
    query: "ListOperations",
    answers: [{ status: 200, description: "A page of them.", json: "OperationList" }],
    errors: queryErrors,
  },
  {
    method: "post",
    path: "/v1/models/{model}/operations",
    tag: "operations",
    operationId: "submitOperation",
    summary: "Trains a step, imports or publishes a policy",
    description:
      "Operations of one model run in the order in which they came. The same `clientToken` with the same body " +
      "gives the same operation, across restarts too. A body has at most 8 MiB and 200,000 values, which is room for 60,000 rollouts.",
    body: "SubmitOperation",
    answers: [{ status: 200, description: "The operation.", json: "Operation" }],
    errors: [
      "invalid_reward",
      "eval_rollout",
      "model_not_found",
      "rollout_not_found",
      "base_mismatch",
      "model_mismatch",
      "step_mismatch",
      "already_trained",
      "rollout_open",
      "client_token_reused",
      "disk_full",
    ],
  },
  {
    method: "get",
    path: "/v1/operations/{id}",
    tag: "operations",
    operationId: "getOperation",
    summary: "An operation's status and result",
    description:
      "`error` of one that failed has the same shape, and the same codes, as an error response.",
    answers: [{ status: 200, description: "The operation.", json: "Operation" }],
    errors: ["operation_not_found"],
  },
  {
    method: "post",
    path: "/v1/operations/{id}/abort",
    tag: "operations",
    operationId: "abortOperation",
    summary: "Ends an operation before its commit point",
    answers: [{ status: 200, description: "The operation as it is now.", json: "Operation" }],
    errors: ["operation_not_found", "disk_full"],
  },
  {
    method: "get",
    path: "/v1/operations/{id}/events",
    tag: "operations",
    operationId: "followOperation",
    summary: "An operation's events, from its first to its last",
    headers: [
      {
        name: "Last-Event-ID",
        description: "Goes on behind this event: the `id` of the last one that was received.",
        type: "integer",
      },
    ],
    answers: [
      {
        status: 200,
        description: "Server-sent events; the stream ends behind the event `ended`.",
        events: {
          data: "OperationEvent",
          description:
            "`id` is the event's `seq`, `event` its `type`, `data` the event as JSON. Comments (`: alive`) keep " +
            "the connection open while nothing happens.",
        },
      },
    ],
    errors: ["operation_not_found", "invalid_request"],
  },
];
