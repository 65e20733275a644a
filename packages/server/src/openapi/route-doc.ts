import type { ErrorCode } from "@hone/core";
import type { QueryName, SchemaName } from "./schemas.ts";

/** What the document says of one route. Every route of the server has one: a test compares them. */
export interface RouteDoc {
  method: "get" | "post" | "put" | "patch" | "delete";
  /** The path, with `{name}` for parameters. */
  path: string;
  tag: "inference" | "rollouts" | "models" | "operations" | "server";
  operationId: string;
  summary: string;
  description?: string;
  /** Request headers with a meaning of their own. */
  headers?: readonly HeaderDoc[];
  query?: QueryName;
  body?: SchemaName;
  answers: readonly AnswerDoc[];
  /** The codes of its errors, besides those that every route has. */
  errors: readonly ErrorCode[];
  /** The shape of its errors. @default Error */
  errorShape?: "AnthropicError";
  /** The only route that needs no key. */
  open?: true;
}

export interface HeaderDoc {
  name: string;
  description: string;
  type: "string" | "integer";
}

export interface AnswerDoc {
  status: number;
  description: string;
  headers?: readonly HeaderDoc[];
  json?: SchemaName | "any";
  /** Server-sent events, whose `data` is this as JSON. */
  events?: { data: SchemaName; description: string };
  text?: "text/plain" | "text/html";
  /** A file's bytes. */
  bytes?: true;
}

/** A response as the document has it. */
export interface ResponseDoc {
  description: string;
  headers?: Record<string, unknown>;
  content?: Record<string, Record<string, unknown>>;
}

/** Errors that every route may answer with. */
export const guardErrors = [
  "forbidden_host",
  "forbidden_origin",
  "internal_error",
] as const satisfies readonly ErrorCode[];

/** Errors of every route below /v1 while the server starts or stops. */
export const admissionErrors = [
  "worker_unavailable",
  "shutting_down",
] as const satisfies readonly ErrorCode[];

export const bodyErrors = [
  "invalid_json",
  "invalid_request",
  "unsupported_parameter",
  "body_too_large",
  "unsupported_media_type",
] as const satisfies readonly ErrorCode[];

export const parameters: Record<string, string> = {
  engine: "The engine's name.",
  model: "The model's name; where it is read, `name@N` and the base's name too.",
  rollout: "The rollout's id.",
  id: "The id of the rollout or operation.",
  step: "N of `name@N`.",
  name: "A file of the policy's folder, such as `adapter_model.safetensors`.",
};

export const queryKeys: Record<string, string> = {
  limit: "How many, newest first.",
  after: "Goes on behind this id, the last one of the page before.",
  type: "Only operations of this type.",
  mode: "Only rollouts of this mode.",
  status: "Only rollouts of this status.",
  step: "Only rollouts that were sampled from this policy.",
  operation: "Only rollouts that this operation trains or has trained.",
  group: "Only rollouts of this group.",
  force: "Aborts its operations and fails its open rollouts; without it a model in use is refused.",
};
