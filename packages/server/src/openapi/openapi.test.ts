import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  anthropicErrorSchema,
  anthropicModelSchema,
  chatCompletionSchema,
  chatChunkSchema,
  errorCodes,
  errorEnvelopeSchema,
  healthSchema,
  messagesAnswerSchema,
  messagesEventSchema,
  modelEntrySchema,
  modelInfoSchema,
  operationEventSchema,
  operationInfoSchema,
  policyInfoSchema,
  responsesAnswerSchema,
  responsesEventSchema,
  rewardModelListSchema,
  rolloutBatchSchema,
  rolloutInfoSchema,
  textChunkSchema,
  textCompletionSchema,
  tokenCountSchema,
  trajectorySchema,
  type ErrorCode,
} from "@hone/core";
import { Validator } from "@seriousme/openapi-schema-validator";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import { compose, type Composition } from "../compose.ts";
import { workerPython } from "../testing/running-engine.ts";
import { lockDataDir, type DataLock } from "../store/lock.ts";
import { openApiDocument } from "./document.ts";
import { docsPath } from "./routes.ts";

const base = fileURLToPath(new URL("../../../../models/hone-2048-1m", import.meta.url));

it("is a valid OpenAPI 3.1 document", async () => {
  const document = structuredClone(openApiDocument());
  const result = await new Validator().validate(document as unknown as Record<string, unknown>);
  expect(result).toMatchObject({ valid: true });
  // The validator does find faults.
  const broken = {
    ...structuredClone(openApiDocument()),
    paths: { "/x": { get: { responses: 5 } } },
  };
  expect((await new Validator().validate(broken)).valid).toBe(false);
});

it("refers to nothing that it does not have, and names every operation once", () => {
  const document = openApiDocument();
  const text = JSON.stringify(document);
  for (const [, path = ""] of text.matchAll(/"\$ref":"#\/([^"]+)"/g)) {
    let at: unknown = document;
    for (const part of path.split("/")) at = (at as Record<string, unknown>)[part];
    expect(at, path).toBeTypeOf("object");
  }
  const ids = Object.values(document.paths)
    .flatMap((methods) => Object.values(methods))
    .map(({ operationId }) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
});

it("says of fields what the comments in core say", () => {
  const { schemas } = openApiDocument().components;
  const fieldOf = (schema: string, field: string) =>
    (schemas[schema]!["properties"] as Record<string, { description?: string }>)[field];
  // In every branch of a union.
  const { oneOf } = schemas["TrainConfig"] as {
    oneOf: { properties: Record<string, { description?: string }> }[];
  };
  for (const { properties } of oneOf) {
    expect(properties["learningRate"]?.description).toBe("Peak learning rate of AdamW.");
  }
  // A field of a schema that extends another.
  expect(fieldOf("RolloutSummary", "policy")).toEqual(fieldOf("Rollout", "policy"));
  expect(fieldOf("Rollout", "policy")?.description).toContain("name@N");
});

// The server as it is composed, with renderer and worker: its routes are what the document must have.
describe.skipIf(!workerPython())("the document and the server", () => {
  let server: Composition;
  let lock: DataLock;
  const dataDir = mkdtempSync(join(tmpdir(), "hone-openapi-"));
  const key = "hone_the-key-of-this-test";

  beforeAll(async () => {
    lock = lockDataDir(dataDir);
    server = await compose({
      base,
      dataDir,
      lock,
      device: "cpu",
      dtype: "float32",
      python: workerPython()!,
      key: { key, file: join(dataDir, "key"), rotate: () => key },
      publicURL: () => "http://localhost",
      log: pino({ level: "silent" }),
    });
    await server.start();
    expect((await call("PUT", "/v1/models/m", {})).status).toBe(200);
  });
  afterAll(async () => {
    await server?.close();
    lock.release();
    rmSync(dataDir, { recursive: true, force: true });
  });

  const call = async (method: string, path: string, body?: unknown) =>
    server.app.request(path, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body !== undefined && { "content-type": "application/json" }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });

  it("agree on every route and method", () => {
    const registered = server.app.routes
      // Middleware is registered for all methods.
      .filter(({ method }) => method !== "ALL")
      // Tinker's API, whose description is Tinker's.
      .filter(({ path }) => !path.startsWith("/tinker/"))
      // What engines that join say, in no words but their own (engines/joined/wire.ts).
      .filter(({ path }) => !path.startsWith("/engine/"))
      .map(({ method, path }) => `${method} ${path.replaceAll(/:\w+/g, "{}")}`);
    const documented = Object.entries(openApiDocument().paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((m) => `${m.toUpperCase()} ${path.replaceAll(/\{\w+\}/g, "{}")}`),
    );
    expect(documented.toSorted()).toEqual([...new Set(registered)].toSorted());
    expect(documented.length).toBeGreaterThan(20);
  });

  it("agree on what needs the key", async () => {
    for (const [path, methods] of Object.entries(openApiDocument().paths)) {
      for (const [method, { security }] of Object.entries(methods)) {
        const url = path.replaceAll(/\{\w+\}/g, "x");
        const { status } = await server.app.request(url, { method: method.toUpperCase() });
        expect(`${method} ${path} ${status}`).toBe(
          `${method} ${path} ${security?.length === 0 ? 200 : 401}`,
        );
      }
    }
  });

  it("agree on what is answered", async () => {
    const json = async (response: Promise<Response>) => (await response).json();
    /** The answer has what the schema says, and no key that it does not name. */
    const expectIs = (schema: z.ZodType, value: unknown) =>
      expect(schema.parse(value)).toEqual(value);
    const dataOf = async (response: Promise<Response>) =>
      (await (await response).text())
        .split("\n")
        .filter((line) => line.startsWith("data: {"))
        .map((line) => JSON.parse(line.slice("data: ".length)) as unknown);

    expectIs(modelInfoSchema, await json(call("PUT", "/v1/models/m", {})));
    expectIs(modelInfoSchema, await json(call("GET", "/v1/models/m/state")));
    expectIs(modelEntrySchema, await json(call("GET", "/v1/models/m")));
    const policies = (await json(call("GET", "/v1/models/m/policies"))) as { data: unknown[] };
    expectIs(policyInfoSchema, policies.data[0]);
    expectIs(healthSchema, await json(call("GET", "/health")));
    expectIs(rewardModelListSchema, await json(call("GET", "/v1/reward-models")));

    const rollout = (await json(call("POST", "/v1/rollouts", { model: "m" }))) as { id: string };
    expectIs(rolloutInfoSchema, rollout);
    const under = `/v1/rollouts/${rollout.id}`;
    const chat = {
      model: "m",
      messages: [{ role: "user", content: "Say a word." }],
      max_tokens: 4,
      logprobs: true,
      top_logprobs: 2,
    };
    const text = { model: "m", prompt: "Say a word.", max_tokens: 4, logprobs: 2 };
    const stream = { stream: true, stream_options: { include_usage: true } };
    expectIs(chatCompletionSchema, await json(call("POST", `${under}/v1/chat/completions`, chat)));
    expectIs(textCompletionSchema, await json(call("POST", `${under}/v1/completions`, text)));
    const { messages, max_tokens } = chat;
    const said = { model: "m", messages, max_tokens };
    expectIs(messagesAnswerSchema, await json(call("POST", `${under}/v1/messages`, said)));
    const count = call("POST", `${under}/v1/messages/count_tokens`, { model: "m", messages });
    expectIs(tokenCountSchema, await json(count));
    const events = await dataOf(call("POST", `${under}/v1/messages`, { ...said, stream: true }));
    for (const event of events) expectIs(messagesEventSchema, event);
    const input = { model: "m", input: "Say a word.", max_output_tokens: max_tokens };
    expectIs(responsesAnswerSchema, await json(call("POST", `${under}/v1/responses`, input)));
    const parts = await dataOf(call("POST", `${under}/v1/responses`, { ...input, stream: true }));
    for (const event of parts) expectIs(responsesEventSchema, event);
    const headers = { authorization: `Bearer ${key}`, "anthropic-version": "2023-06-01" };
    const named = server.app.request("/v1/models/m", { headers });
    expectIs(anthropicModelSchema, await json(Promise.resolve(named)));
    for (const [path, body, schema] of [
      ["chat/completions", chat, chatChunkSchema],
      ["completions", text, textChunkSchema],
    ] as const) {
      const chunks = await dataOf(call("POST", `${under}/v1/${path}`, { ...body, ...stream }));
      expect(chunks.length).toBeGreaterThan(1);
      for (const chunk of chunks) expectIs(schema, chunk);
    }
    expectIs(
      rolloutInfoSchema,
      await json(call("PATCH", under, { status: "finished", reward: 1 })),
    );
    expectIs(trajectorySchema, await json(call("GET", `${under}/trajectory`)));
    const several = { rollouts: [{ model: "m", id: "several" }, { model: "none" }] };
    expectIs(rolloutBatchSchema, await json(call("POST", "/v1/batch/rollouts", several)));
    const ends = { rollouts: [{ id: "several", status: "finished" }], trajectories: true };
    expectIs(rolloutBatchSchema, await json(call("PATCH", "/v1/batch/rollouts", ends)));

    const submit = {
      clientToken: "t",
      op: {
        type: "train",
        groups: [{ id: "g", rollouts: [{ rolloutId: rollout.id, reward: 1 }] }],
      },
    };
    const operation = (await json(call("POST", "/v1/models/m/operations", submit))) as {
      id: string;
    };
    expectIs(operationInfoSchema, operation);
    const told = await dataOf(call("GET", `/v1/operations/${operation.id}/events`));
    expect(told.length).toBeGreaterThan(1);
    for (const event of told) expectIs(operationEventSchema, event);
    expectIs(operationInfoSchema, await json(call("POST", `/v1/operations/${operation.id}/abort`)));
    expectIs(operationInfoSchema, await json(call("GET", `/v1/operations/${operation.id}`)));
  });

  it.each<[string, string, string, unknown?]>([
    ["POST", "/v1/chat/completions", "/v1/chat/completions", { model: "m" }],
    ["POST", "/v1/chat/completions", "/v1/chat/completions", { model: "no", messages: [] }],
    ["POST", "/v1/messages", "/v1/messages", { model: "m", messages: [] }],
    [
      "POST",
      "/v1/rollouts/{rollout}/v1/messages/count_tokens",
      "/v1/rollouts/ro_no/v1/messages/count_tokens",
      { model: "m", messages: [{ role: "user", content: "?" }] },
    ],
    ["POST", "/v1/completions", "/v1/completions", { model: "no", prompt: "x" }],
    ["POST", "/v1/completions", "/v1/completions", { model: "m", prompt: ["a", "b"] }],
    ["POST", "/v1/completions", "/v1/completions", { model: "m@9", prompt: "x" }],
    [
      "POST",
      "/v1/rollouts/{rollout}/v1/completions",
      "/v1/rollouts/ro_no/v1/completions",
      { model: "m", prompt: "x" },
    ],
    ["POST", "/v1/score", "/v1/score", { model: "none", items: [{ text: "a" }] }],
    ["POST", "/v1/score", "/v1/score", { model: "none", items: [] }],
    ["PUT", "/v1/models/{model}", "/v1/models/m", { base: "other" }],
    ["PUT", "/v1/models/{model}", "/v1/models/m", { lora: { r: 3, alpha: 1 } }],
    ["GET", "/v1/models/{model}/state", "/v1/models/none/state"],
    ["POST", "/v1/rollouts", "/v1/rollouts", { model: "none" }],
    ["POST", "/v1/batch/rollouts", "/v1/batch/rollouts", { rollouts: [] }],
    ["PATCH", "/v1/batch/rollouts", "/v1/batch/rollouts", { rollouts: [] }],
    ["GET", "/v1/rollouts/{id}", "/v1/rollouts/ro_no"],
    ["PATCH", "/v1/rollouts/{id}", "/v1/rollouts/ro_no", { reward: "x" }],
    ["POST", "/v1/models/{model}/operations", "/v1/models/m/operations", { clientToken: "t" }],
    [
      "POST",
      "/v1/models/{model}/operations",
      "/v1/models/m/operations",
      { clientToken: "t", op: { type: "publish" } },
    ],
    [
      "POST",
      "/v1/models/{model}/operations",
      "/v1/models/m/operations",
      { clientToken: "u", expectedStep: 7, op: { type: "publish" } },
    ],
    ["GET", "/v1/operations/{id}/events", "/v1/operations/op_no/events"],
  ])("agree on the error of %s %s (%s)", async (method, path, url, body) => {
    const response = await call(method, url, body);
    const value: unknown = await response.json();
    const shape = path.includes("/messages") ? anthropicErrorSchema : errorEnvelopeSchema;
    const code = shape.parse(value).error.code as ErrorCode;
    expect(response.status).toBe(errorCodes[code].status);
    const documented =
      openApiDocument().paths[path]![method.toLowerCase()]!.responses[response.status];
    const named = JSON.stringify(documented).match(/"#\/components\/responses\/([^"]+)"/)?.[1];
    expect(named?.split(".")).toContain(code);
    expect(openApiDocument().components.responses[named!]!.description).toContain(`\`${code}\``);
  });

  it("serve the document behind the key, and the page without one", async () => {
    const served = await call("GET", "/openapi.json");
    expect(await served.json()).toEqual(openApiDocument());

    const page = await server.app.request(docsPath);
    const text = await page.text();
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toContain("text/html");
    for (const [path, methods] of Object.entries(openApiDocument().paths)) {
      expect(text).toContain(`<code>${path}</code>`);
      for (const { operationId } of Object.values(methods)) expect(text).toContain(operationId);
    }
    for (const [, target] of text.matchAll(/href="#([^"]+)"/g)) {
      expect(text).toContain(`id="${target}"`);
    }
    // Nothing is loaded, nothing runs, and the one style is the one that the policy lets through.
    expect(text).not.toMatch(/<script|<link|<img|https?:|src=|@import|url\(/i);
    expect(text).not.toContain(key);
    const style = /<style>([^]*?)<\/style>/.exec(text)![1]!;
    const hash = createHash("sha256").update(style).digest("base64");
    const policy = page.headers.get("content-security-policy");
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain(`style-src 'sha256-${hash}'`);
  });

  it("check Host and Origin of the page too, and let nothing be written without a key", async () => {
    const ask = (method: string, headers: Record<string, string>) =>
      server.app.request(docsPath, { method, headers });
    expect((await ask("GET", { host: "evil.example" })).status).toBe(403);
    expect((await ask("GET", { origin: "https://evil.example" })).status).toBe(403);
    expect((await ask("POST", {})).status).toBe(401);
    expect((await server.app.request(`${docsPath}/x`)).status).toBe(401);
  });
});
