import { readFileSync } from "node:fs";
import { failures, type SharedResponses } from "./failures.ts";
import { inferenceRoutes } from "./inference-routes.ts";
import {
  parameters,
  queryKeys,
  type AnswerDoc,
  type HeaderDoc,
  type ResponseDoc,
  type RouteDoc,
} from "./route-doc.ts";
import { componentSchemas, queryProperties, ref, type JsonSchema } from "./schemas.ts";
import { serverRoutes } from "./server-routes.ts";
import { trainingRoutes } from "./training-routes.ts";

export interface OpenApiDocument {
  openapi: "3.1.1";
  info: { title: string; version: string; description: string; license: { name: string } };
  servers: { url: string }[];
  security: Record<string, string[]>[];
  tags: { name: RouteDoc["tag"]; description: string }[];
  paths: Record<string, Record<string, Operation>>;
  components: {
    schemas: Record<string, JsonSchema>;
    responses: SharedResponses;
    headers: Record<string, unknown>;
    securitySchemes: Record<string, unknown>;
  };
}

export interface Operation {
  tags: string[];
  operationId: string;
  summary: string;
  description?: string;
  parameters?: {
    name: string;
    in: "path" | "header" | "query";
    required?: true;
    description: string;
    schema: JsonSchema;
  }[];
  requestBody?: { required: true; content: Record<string, { schema: JsonSchema }> };
  responses: Record<string, ResponseDoc | { $ref: string }>;
  security?: [];
}

const routes: readonly RouteDoc[] = [...inferenceRoutes, ...trainingRoutes, ...serverRoutes];

let made: OpenApiDocument | undefined;

/** The HTTP API as OpenAPI 3.1. It depends on nothing but the code. */
export function openApiDocument(): OpenApiDocument {
  made ??= makeDocument();
  return made;
}

function makeDocument(): OpenApiDocument {
  const paths: OpenApiDocument["paths"] = {};
  const responses: SharedResponses = {};
  for (const route of routes) {
    (paths[route.path] ??= {})[route.method] = operation(route, responses);
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "Hone",
      version: packageVersion(),
      description:
        "Reinforcement learning for the model behind an agent: OpenAI's dialect for inference, and a training " +
        "plane beside it. Bodies are JSON; errors are OpenAI's envelope. `x-should-retry` and `retry-after-ms` " +
        "say whether the same request may be sent again.",
      license: { name: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    security: [{ key: [] }],
    tags: [
      { name: "inference", description: "OpenAI's dialect, plain and under a rollout's base URL." },
      {
        name: "rollouts",
        description: "Episodes: what is sampled under one is recorded for training.",
      },
      { name: "models", description: "Models and their policies, `name@N`." },
      { name: "operations", description: "Training steps, imports, publishing." },
      { name: "server", description: "The server itself." },
    ],
    paths,
    components: {
      schemas: componentSchemas(),
      responses,
      headers: {
        RequestId: header({
          name: "",
          description: "The request, in the server's log.",
          type: "string",
        }),
        ShouldRetry: header({
          name: "",
          description: "`true` where the same request may be sent again, else `false`.",
          type: "string",
        }),
        RetryAfter: header({
          name: "",
          description: "Milliseconds to wait before that.",
          type: "integer",
        }),
      },
      securitySchemes: {
        key: {
          type: "http",
          scheme: "bearer",
          description:
            "The server makes a key on its first start and prints it; it is in `key` in the data directory.",
        },
      },
    },
  };
}

function operation(route: RouteDoc, shared: SharedResponses): Operation {
  const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => ({
    name,
    in: "path" as const,
    required: true as const,
    description: parameters[name] ?? "",
    schema: { type: "string" },
  }));
  const inHeaders = (route.headers ?? []).map(({ name, description, type }) => ({
    name,
    in: "header" as const,
    description,
    schema: { type },
  }));
  const inQuery = Object.entries(route.query ? queryProperties(route.query) : {}).map(
    ([name, schema]) => ({
      name,
      in: "query" as const,
      description: queryKeys[name] ?? "",
      schema,
    }),
  );
  const all = [...inPath, ...inQuery, ...inHeaders];
  return {
    tags: [route.tag],
    operationId: route.operationId,
    summary: route.summary,
    ...(route.description && { description: route.description }),
    ...(all.length > 0 && { parameters: all }),
    ...(route.body && {
      requestBody: {
        required: true as const,
        content: { "application/json": { schema: ref(route.body) } },
      },
    }),
    responses: { ...answers(route.answers), ...failures(route, shared) },
    ...(route.open && { security: [] as [] }),
  };
}

function answers(docs: readonly AnswerDoc[]): Record<string, ResponseDoc> {
  return Object.fromEntries(docs.map((doc) => [String(doc.status), answer(doc)]));
}

function answer({ description, headers, json, events, text, bytes }: AnswerDoc): ResponseDoc {
  const content: NonNullable<ResponseDoc["content"]> = {};
  if (json) content["application/json"] = { schema: json === "any" ? {} : ref(json) };
  if (events) {
    content["text/event-stream"] = {
      schema: { type: "string", description: events.description },
      // OpenAPI 3.1 has no word for the schema of an event's data.
      "x-event-data": ref(events.data),
    };
  }
  if (bytes) content["application/octet-stream"] = { schema: {} };
  if (text) content[text] = { schema: { type: "string" } };
  return {
    description,
    headers: {
      "x-request-id": { $ref: "#/components/headers/RequestId" },
      ...Object.fromEntries((headers ?? []).map((doc) => [doc.name, header(doc)])),
    },
    content,
  };
}

function header({ description, type }: HeaderDoc): Record<string, unknown> {
  return { description, schema: { type } };
}

function packageVersion(): string {
  // src/openapi and dist/openapi are equally deep.
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
