import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

describe("bad input", () => {
  let server: TestServer;
  let rolloutId = "";
  beforeAll(async () => {
    server = await startTestServer();
    await server.hone.model({ name: "m" });
    const made = await server.fetch("/v1/rollouts", {
      method: "POST",
      body: JSON.stringify({ model: "m" }),
    });
    rolloutId = ((await made.json()) as { id: string }).id;
  });
  afterAll(() => server?.close());

  const chat = { model: "m", messages: [{ role: "user", content: "Say a word." }] };
  const op = (rollout: string, reward: unknown, config: object = {}) => ({
    clientToken: "bad-1",
    op: {
      type: "train",
      groups: [{ id: "g", rollouts: [{ rolloutId: rollout, reward }] }],
      config,
    },
  });

  it.each([
    ["malformed JSON", "/v1/chat/completions", "{", 400, "invalid_json", null],
    [
      "an unknown model",
      "/v1/chat/completions",
      { ...chat, model: "nope" },
      404,
      "model_not_found",
      "model",
    ],
    [
      "an unknown policy",
      "/v1/chat/completions",
      { ...chat, model: "m@7" },
      404,
      "policy_not_found",
      "model",
    ],
    [
      "an unknown option",
      "/v1/chat/completions",
      { ...chat, min_p: 1 },
      400,
      "unsupported_parameter",
      "min_p",
    ],
    [
      "a wrong type",
      "/v1/chat/completions",
      { ...chat, temperature: "hot" },
      400,
      "invalid_request",
      "temperature",
    ],
    [
      "a missing reward",
      "/v1/models/m/operations",
      op("ro_x", undefined),
      400,
      "invalid_reward",
      "op.groups[0].rollouts[0].reward",
    ],
    [
      "an unknown train option",
      "/v1/models/m/operations",
      op("ro_x", 1, { lr: 1 }),
      400,
      "unsupported_parameter",
      "op.config.lr",
    ],
    [
      "a foreign rollout",
      "/v1/models/m/operations",
      op("ro_ffffffffffffffffffffffff", 1),
      404,
      "rollout_not_found",
      null,
    ],
    [
      "a rollout of an unknown model",
      "/v1/rollouts",
      { model: "nope" },
      404,
      "model_not_found",
      "model",
    ],
    ["a path in a name", "/v1/rollouts", { model: "../x" }, 400, "invalid_request", "model"],
  ])("%s is a 4xx that says what to do", async (_name, path, body, status, code, param) => {
    const response = await server.fetch(path, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    const { error } = (await response.json()) as { error: Record<string, unknown> };
    expect({ status: response.status, code: error["code"] }).toEqual({ status, code });
    if (param !== null) expect(error["param"]).toBe(param);
    expect(String(error["message"]).length).toBeGreaterThan(15);
  });

  it("NaN, which JSON writes as it likes, never becomes a reward", async () => {
    const body = `{"clientToken":"n","op":{"type":"train","groups":[{"id":"g","rollouts":[{"rolloutId":"${rolloutId}","reward":NaN}]}]}}`;
    const response = await server.fetch("/v1/models/m/operations", { method: "POST", body });
    expect(response.status).toBe(400);
    const infinite = await server.fetch("/v1/models/m/operations", {
      method: "POST",
      body: body.replace("NaN", "1e999"),
    });
    expect(infinite.status).toBe(400);
  });

  it("a missing or wrong key is a 401 in OpenAI's envelope", async () => {
    for (const authorization of ["", "Bearer wrong"]) {
      const response = await server.fetch("/v1/chat/completions", {
        method: "POST",
        body: JSON.stringify(chat),
        headers: { authorization },
      });
      expect(response.status).toBe(401);
      expect(await response.json()).toMatchObject({ error: { code: "invalid_api_key" } });
    }
  });

  it("too large a body is a 413", async () => {
    const content = "x".repeat(9 * 2 ** 20);
    const response = await server.fetch("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({ ...chat, messages: [{ role: "user", content }] }),
    });
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ error: { code: "body_too_large" } });
  });

  it("a prompt that cannot fit is context_length_exceeded", async () => {
    const response = await server.fetch("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({ ...chat, messages: [{ role: "user", content: "é".repeat(40_000) }] }),
    });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code: "context_length_exceeded" } });
  });

  it("loses nothing: the rollout of before still answers", async () => {
    const response = await server.fetch(`/v1/rollouts/${rolloutId}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ ...chat, max_tokens: 4 }),
    });
    expect(response.status).toBe(200);
    expect(response.headers.get("x-hone-policy")).toBe("m@0");
  });
});
