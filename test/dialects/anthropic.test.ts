import Anthropic from "@anthropic-ai/sdk";
import { gather, type RolloutModel } from "@hone/client";
import { completionListSchema } from "@hone/core";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const tools: Anthropic.Tool[] = [
  {
    name: "look",
    description: "Looks around.",
    input_schema: { type: "object", properties: { where: { type: "string" } } },
  },
];

let played = 0;

/** Three turns of Anthropic's SDK, streamed and whole in turn, with tools that the model may call. */
async function play(model: RolloutModel): Promise<{ reward: number }> {
  const { model: name, ...connection } = model.anthropic();
  const client = new Anthropic(connection);
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: "Say a word." }];
  let said = 0;
  for (let turn = 0; turn < 3; turn++) {
    const prompt = { model: name, system: "You are brief.", messages, tools };
    const counted = await client.messages.countTokens(prompt);
    const asked = { ...prompt, max_tokens: 6 };
    const answer =
      turn === 1
        ? await client.messages.create(asked)
        : await client.messages.stream(asked).finalMessage();
    expect(answer.usage.input_tokens).toBe(counted.input_tokens);
    expect(answer.model).toBe(`${name}@${model.mode === "train" ? step : 0}`);
    said += answer.usage.output_tokens;
    messages.push(
      { role: "assistant", content: answer.content },
      { role: "user", content: [{ type: "text", text: "Another one." }] },
    );
  }
  // No two are equal: a group in which all were would not train.
  return { reward: (said % 2) + played++ / 100 };
}
let step = 0;

describe("training an agent of Anthropic's SDK", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    await server?.close();
  });

  it("trains every turn as one sequence, on the ids that were sampled", async () => {
    // Whatever the environment holds is for Anthropic's own server.
    vi.stubEnv("ANTHROPIC_API_KEY", "not-for-this-server");
    vi.stubEnv("ANTHROPIC_AUTH_TOKEN", "nor-this");
    const model = await server.hone.model({ name: "claw" });
    for (; step < 2; step++) {
      const groups = await gather(model, play, [{}, {}], { groupSize: 4 });
      expect(groups.flatMap((group) => group.exceptions)).toEqual([]);
      const trajectories = groups.flatMap((group) => group.trajectories);
      for (const { messages, histories, usage } of trajectories) {
        expect(usage.completions).toBe(3);
        expect(messages).toHaveLength(7);
        expect(messages[0]).toMatchObject({ role: "system", content: "You are brief." });
        expect(histories).toEqual([]);
      }
      const path = `/v1/rollouts/${trajectories[0]!.rolloutId}/completions`;
      const { data } = completionListSchema.parse(await (await server.fetch(path)).json());
      expect(data.map(({ parentId }) => parentId)).toEqual([null, data[0]!.id, data[1]!.id]);
      const result = await model.train(groups, { learningRate: 1e-3 });
      expect(result).toMatchObject({ trained: true, step: step + 1 });
      const tokens = trajectories.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
      expect(result.metrics["train_tokens"]).toBe(tokens);
      // The trainer's forward over the joined turns gives what the engine gave turn by turn.
      expectSameLogprobs(result);
    }
  });

  it("is known by the SDK's own key header, and refused without it", async () => {
    const keyed = new Anthropic({ baseURL: server.url, apiKey: server.key, authToken: null });
    const { data } = await keyed.models.list();
    expect(data.map(({ id }) => id)).toContain("claw@2");
    const stranger = new Anthropic({ baseURL: server.url, apiKey: "wrong", authToken: null });
    const refused = await stranger.models.list().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(Anthropic.AuthenticationError);
    expect(refused).toMatchObject({
      requestID: expect.stringMatching(/^req_/),
      error: { type: "error", error: { type: "authentication_error" } },
    });
  });

  it("follows the rollout with one client for all of them", async () => {
    const model = await server.hone.model({ name: "claw" });
    let client: Anthropic | undefined;
    const groups = await gather(
      model,
      async (m) => {
        client ??= new Anthropic({ ...m.anthropic(), fetch: m.fetch });
        await client.messages.create({
          model: m.name,
          max_tokens: 2,
          messages: [{ role: "user", content: "?" }],
        });
        return 0;
      },
      [{}],
      { groupSize: 3 },
    );
    const { trajectories, exceptions } = groups[0]!;
    expect(exceptions).toEqual([]);
    expect(trajectories.map(({ usage }) => usage.completions)).toEqual([1, 1, 1]);
  });
});
