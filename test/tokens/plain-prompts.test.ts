import { gather, type RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** vLLM's extension of the dialect, which openai-node passes on. */
interface Ids {
  prompt_token_ids: number[];
  token_ids: number[];
}

let played = 0;

/** An agent of three turns over plain prompts: it goes on with the ids that were sampled, and never with text. */
async function count(model: RolloutModel): Promise<{ reward: number }> {
  const client = new OpenAI(model.connection());
  let prompt: string | number[] = "one two three";
  let sampled = 0;
  for (let turn = 0; turn < 3; turn++) {
    const { choices } = await client.completions.create({
      model: model.connection().model,
      prompt,
      max_tokens: 5,
      ...{ return_token_ids: true },
    });
    const { prompt_token_ids: asked, token_ids: said } = choices[0]! as unknown as Ids;
    // 13 stands for what a tool or a user would have said in between.
    prompt = [...asked, ...said, 13];
    sampled += said.reduce((sum, id) => sum + (id % 2), 0);
  }
  // No two are equal: a group in which all were would not train.
  return { reward: sampled + played++ / 100 };
}

describe("training on plain prompts", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server?.close());

  it("trains every turn as one sequence, on the ids that were sampled", async () => {
    const model = await server.hone.model({ name: "plain" });
    let trained = 0;
    for (let step = 0; step < 2; step++) {
      const groups = await gather(model, count, [{}, {}], { groupSize: 4 });
      const trajectories = groups.flatMap((group) => group.trajectories);
      for (const { messages, histories, usage } of trajectories) {
        expect(usage.completions).toBe(3);
        expect(messages.map(({ role }) => role)).toEqual([
          "user",
          "assistant",
          "user",
          "assistant",
          "user",
          "assistant",
        ]);
        expect(messages[0]!.content).toBe("one two three");
        expect(histories).toEqual([]);
      }
      const result = await model.train(groups, { learningRate: 1e-3 });
      expect(result).toMatchObject({ trained: true, step: step + 1 });
      const varied = result.groups.filter(({ reason }) => reason === null).map(({ id }) => id);
      const tokens = groups
        .filter(({ id }) => varied.includes(id))
        .flatMap((group) => group.trajectories)
        .reduce((sum, { usage }) => sum + usage.completionTokens, 0);
      expect(result.metrics["train_tokens"]).toBe(tokens);
      // The trainer's forward over the joined turns gives what the engine gave turn by turn.
      expectSameLogprobs(result);
      trained++;
    }
    expect(trained).toBe(2);
  });
});
