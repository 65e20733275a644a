import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { inspect } from "node:util";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "../judging/score-group.ts";
import * as steps from "../testing/judge-steps.ts";
import { readJudgePrompt } from "../testing/judge-prompt.ts";

interface Seen {
  route: string;
  key: string | undefined;
  body: Record<string, unknown>;
}

/** The routes of a Hone server that a judge needs; what the real one does is tested end to end. */
let seen: Seen[];
/** What the server refuses completions with. */
let refusal: string | null;
let close: () => Promise<void>;
beforeEach(async () => {
  seen = [];
  refusal = null;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Record<string, unknown>;
      const route = `${request.method} ${request.url?.replace(/ro_[0-9a-f]+/, "ID")}`;
      seen.push({ route, key: request.headers.authorization, body });
      const send = (value: unknown): void => {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify(value));
      };
      const id = request.url?.split("/")[3] ?? body["id"];
      if (!route.endsWith("/chat/completions")) {
        send({
          id,
          object: "rollout",
          model: "judge",
          mode: "train",
          status: "open",
          group: null,
          policy: null,
          baseURL: "http://unreachable.invalid/v1",
          reward: null,
          completions: 0,
          leaseExpiresAt: null,
          createdAt: 1,
        });
        return;
      }
      if (refusal) {
        const error = { message: refusal, type: "invalid_request_error", code: "invalid_request" };
        response.writeHead(400, { "content-type": "application/json" });
        response.end(JSON.stringify({ error }));
        return;
      }
      const prompt = readJudgePrompt(body["messages"] as { role: string }[]);
      const bad = prompt.system.includes("Answer badly.");
      const content = bad ? "no" : steps.answer(prompt, ({ finalText }) => Number(finalText));
      send({
        id: "c",
        object: "chat.completion",
        created: 1,
        model: "judge@3",
        choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
        usage: { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 },
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  vi.stubEnv("HONE_URL", `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`);
  vi.stubEnv("HONE_API_KEY", "hone-key");
  close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await close();
});

it("a judge on our own server is a rollout there, whose id and policy come back", async () => {
  const scored = await rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge@3");
  expect(rewardsOf(scored)).toEqual([0.1, 0.9]);
  expect(seen.map(({ route }) => route)).toEqual([
    "POST /v1/rollouts",
    "POST /v1/rollouts/ID/v1/chat/completions",
    "PATCH /v1/rollouts/ID",
  ]);
  expect(new Set(seen.map(({ key }) => key))).toEqual(new Set(["Bearer hone-key"]));
  const [made, asked, ended] = seen.map(({ body }) => body);
  expect(made).toMatchObject({ model: "judge", step: 3, group: "grp_1-judge" });
  expect(asked).toMatchObject({ model: "judge@3" });
  expect(ended).toMatchObject({ status: "finished", reward: null });
  expect(scored.judgement.costUsd).toBe(0);
  expect(scored.judgement.trajectories).toEqual([
    expect.objectContaining({ rolloutId: made?.["id"], policy: "judge@3", reward: null }),
  ]);
});

it("is held to exactly the ids that it was shown, in their order", async () => {
  await rulerScoreGroup(groupOf("0.1", "0.9", "0.5"), "hone/judge", { passes: 2 });
  const asked = seen.filter(({ route }) => route.endsWith("completions")).map(({ body }) => body);
  const orders = asked.map((body) => {
    const shown = readJudgePrompt(body["messages"] as { role: string }[]).attempts;
    const { type, json_schema: wanted } = body["response_format"] as {
      type: string;
      json_schema: { schema: { properties: { scores: Record<string, unknown> } } };
    };
    const { prefixItems, minItems, items } = wanted.schema.properties.scores;
    expect({ type, minItems, items }).toEqual({ type: "json_schema", minItems: 3, items: false });
    const entries = prefixItems as { properties: { id: { const: string } } }[];
    const ids = entries.map(({ properties }) => properties.id.const);
    expect(ids).toEqual(shown.map(({ id }) => id));
    return ids.join();
  });
  expect(new Set(orders).size).toBe(2);
});

it("is asked without a format where it is to be trained", async () => {
  await rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge", { structuredOutput: "none" });
  expect(seen[1]?.body).not.toHaveProperty("response_format");
});

it("its server's errors are told without the key", async () => {
  const fetch = () => Promise.resolve(new Response("No rollout for hone-key.", { status: 400 }));
  const error: unknown = await rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge", {
    swallowErrors: false,
    fetch,
  }).catch((cause: unknown) => cause);
  expect(inspect(error, { depth: 10 })).toContain("No rollout for [hidden].");
  expect(inspect(error, { depth: 10 })).not.toContain("hone-key");
});

it("is never asked for less than its schema: a refusal is an error", async () => {
  refusal = "response_format: this schema is not supported.";
  await expect(
    rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge", { swallowErrors: false }),
  ).rejects.toMatchObject({ failure: "provider_error", status: 400 });
  refusal = null;
  await rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge");
  const asked = seen.filter(({ route }) => route.endsWith("completions"));
  expect(asked.map(({ body }) => (body["response_format"] as { type: string }).type)).toEqual([
    "json_schema",
    "json_schema",
  ]);
});

it("is asked again each time: the policy behind its name changes", async () => {
  await rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge");
  await rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge");
  expect(seen).toHaveLength(6);
  expect(seen[0]?.body).not.toHaveProperty("step");
});

it("ends as failed where it gave no scores", async () => {
  await expect(
    rulerScoreGroup(groupOf("0.1", "0.9"), "hone/judge", {
      rubric: "Answer badly.",
      swallowErrors: false,
    }),
  ).rejects.toMatchObject({ failure: "invalid_answer" });
  expect(seen.at(-1)?.body).toMatchObject({ status: "failed" });
  expect(seen.filter(({ route }) => route.endsWith("completions"))).toHaveLength(2);
});
