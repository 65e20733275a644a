import { gather, type RolloutModel } from "@hone/client";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { rulerScoreGroup } from "@hone/ruler";
import { findEnvironment } from "@hone/server";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { setUpModel } from "../../packages/server/src/setup/models.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const rubric = "A right answer scores above a wrong one and above none.";
const answers = ["It is Paris.", "It is Lyon.", "I would rather not say."];

/** Attempts that no model made: the judge is what is tried here. */
function conversationsOf(group: TrajectoryGroup): TrajectoryGroup {
  return {
    ...group,
    trajectories: group.trajectories.map((trajectory, i) => ({
      ...trajectory,
      messages: [
        { role: "user", content: "What is the capital of France?" },
        { role: "assistant", content: answers[i]! },
      ],
    })),
  };
}

/** The judge's prompt once more, in a rollout of one's own: a group needs two. */
async function sayAgain(model: RolloutModel, { messages }: Trajectory): Promise<null> {
  const { baseURL, apiKey, model: name, fetch } = model.connection();
  const response = await fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
    body: JSON.stringify({
      model: name,
      messages: messages.slice(
        0,
        messages.findIndex(({ role }) => role === "assistant"),
      ),
      max_tokens: 24,
    }),
  });
  expect(response.status).toBe(200);
  await response.text();
  return null;
}

// SmolLM2-135M-Instruct: a real instruct model, and a poor judge. It shows that the path holds, not that it judges well.
describe("a small model of the server as the judge", () => {
  let server: TestServer;
  beforeAll(async () => {
    const python = await findEnvironment();
    // Fetched once for this machine, and converted where it does not come from the hub.
    const { folder } = await setUpModel("smollm2", python, { say: () => undefined });
    server = await startTestServer(undefined, { base: folder });
    vi.stubEnv("HONE_URL", server.url);
    vi.stubEnv("HONE_API_KEY", server.key);
  }, 600_000);
  afterAll(async () => {
    vi.unstubAllEnvs();
    await server?.close();
  });

  it(
    "gives valid scores, bound by id, and what it said is not trained unless that is allowed",
    { timeout: 600_000 },
    async () => {
      vi.spyOn(console, "warn").mockReturnValue();
      const model = await server.hone.model({ name: "judge" });
      const [made] = await gather(model, () => Promise.resolve(null), [{}], {
        groupSize: answers.length,
      });
      const scored = await rulerScoreGroup(conversationsOf(made!), "hone/judge@0", {
        rubric,
        passes: 2,
        // A busy machine has this model write for minutes; a request that is given up would be a further call.
        timeoutMs: 500_000,
        swallowErrors: false,
      });
      const { judgement } = scored;
      expect(judgement).toMatchObject({ status: "judged", calls: 2, repairs: 0, failedPasses: 0 });
      for (const { reward, logs } of scored.trajectories) {
        expect(reward).toBeGreaterThanOrEqual(0);
        expect(reward).toBeLessThanOrEqual(1);
        expect(logs.at(-1)).toMatch(/\S/);
      }

      const judges = judgement.trajectories;
      expect(judges).toHaveLength(2);
      for (const { rolloutId, messages } of judges) {
        const said = messages.at(-1)!.content as string;
        const { scores } = JSON.parse(said) as { scores: { id: string; score: number }[] };
        expect(new Set(scores.map(({ id }) => id)).size).toBe(answers.length);
        const recorded = await server.fetch(`/v1/rollouts/${rolloutId}/completions`);
        expect(await recorded.json()).toMatchObject({
          rollout: { status: "finished", model: "judge" },
          data: [{ constrained: true, finishReason: "stop", delivered: true }],
        });
      }
      // The same rollouts with rewards of their own: how it judged, were it to be taught that.
      const lesson: TrajectoryGroup = {
        ...made!,
        id: "lesson",
        trajectories: judges.map((trajectory, i) => ({ ...trajectory, reward: i })),
      };
      expect(await model.train([lesson])).toMatchObject({
        trained: false,
        step: 0,
        reasons: { constrained: 1 },
      });
      expect(await model.train([lesson], { allowConstrained: true })).toMatchObject({
        trained: true,
        step: 1,
      });
    },
  );

  it("learns from how it judged, sampled in words of its own", { timeout: 600_000 }, async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const model = await server.hone.model({ name: "learner" });
    const [made] = await gather(model, () => Promise.resolve(null), [{}], {
      groupSize: answers.length,
    });
    // The policy itself, held to nothing: this model's answers are no judgements, and are recorded all the same.
    const scored = await rulerScoreGroup(conversationsOf(made!), "hone/learner", {
      rubric,
      structuredOutput: "none",
      parameters: { max_tokens: 24 },
      timeoutMs: 500_000,
    });
    expect(scored.judgement.status).toBe("failed");
    expect(scored.trajectories.map(({ reward }) => reward)).toEqual([null, null, null]);
    // The judgement, and the repair that it was asked for.
    const said = scored.judgement.trajectories;
    expect(said.length).toBeGreaterThan(0);
    const [again] = await gather(model, (m) => sayAgain(m, said[0]!), [{}], { groupSize: 1 });
    const lesson: TrajectoryGroup = {
      ...made!,
      id: "lesson",
      trajectories: [
        { ...said[0]!, reward: 0 },
        { ...again!.trajectories[0]!, reward: 1 },
      ],
    };
    expect(await model.train([lesson])).toMatchObject({ trained: true, step: 1, reasons: {} });
    expect((await model.info()).served).toBe(1);
  });
});
