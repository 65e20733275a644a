import { gather, type RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

async function anyWord(model: RolloutModel): Promise<number> {
  const { model: name, ...connection } = model.connection();
  const completion = await new OpenAI(connection).chat.completions.create({
    model: name,
    messages: [{ role: "user", content: "Say a word." }],
    max_tokens: 4,
  });
  return completion.choices[0]?.message.content?.length ?? 0;
}

describe("the same client token, twenty times at once", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server?.close());

  it("makes one operation and one step", async () => {
    const model = await server.hone.model({ name: "once" });
    const groups = await gather(model, anyWord, [{}, {}], { groupSize: 4, concurrency: 8 });
    const body = JSON.stringify({
      clientToken: "evening-1",
      expectedStep: 0,
      op: {
        type: "train",
        groups: groups.map((group) => ({
          id: group.id,
          rollouts: group.trajectories.map((t, i) => ({ rolloutId: t.rolloutId, reward: i })),
        })),
      },
    });
    const submit = async (): Promise<string> => {
      const response = await server.fetch("/v1/models/once/operations", { method: "POST", body });
      expect(response.status).toBeLessThan(300);
      return ((await response.json()) as { id: string }).id;
    };
    const ids = await Promise.all(Array.from({ length: 20 }, submit));
    expect(new Set(ids).size).toBe(1);
    await expect.poll(async () => (await model.info()).served, { timeout: 240_000 }).toBe(1);
    expect((await model.info()).learnt).toBe(1);

    const other = await server.fetch("/v1/models/once/operations", {
      method: "POST",
      body: body.replace('"expectedStep":0', '"expectedStep":1'),
    });
    expect(other.status).toBe(422);
    const again = await server.fetch("/v1/models/once/operations", {
      method: "POST",
      body: body.replace("evening-1", "evening-2").replace('"expectedStep":0', '"expectedStep":1'),
    });
    expect(again.status).toBe(409);
    expect(await again.json()).toMatchObject({ error: { code: "already_trained" } });
  });
});
