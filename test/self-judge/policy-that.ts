import type { TrajectoryGroup } from "@hone/core";
import type { ScoreHow } from "@hone/client/run";
import { onTestFinished } from "vitest";
import {
  rolloutRoutes,
  send,
  sendError,
  sendItems,
  startRouteServer,
} from "../../packages/client/src/testing/route-server.ts";

/** What the policy answers to the nth judging prompt about a group; null breaks the request. */
type Says = (group: string, nth: number, order: readonly number[]) => string | null;

/** A server whose policy judges as the test says, what `score` was told with it, and the seeds of the judgements. */
export async function policyThat(says: Says) {
  const { rollouts, routes } = rolloutRoutes();
  const answers = new Map<string, string>();
  const asked = new Map<string, number>();
  const seeds: unknown[] = [];
  const server = await startRouteServer([
    [
      "POST /v1/rollouts/[^/]+/v1/chat/completions",
      ({ path, body }, response) => {
        const text = String(body.messages.at(-1).content);
        // The candidates are "g0, output 2": the group, and which of its outputs is shown where.
        const order = [...text.matchAll(/"(g\d+), output (\d+)"/g)];
        const group = order[0]?.[1] ?? "";
        seeds.push(body.seed);
        const nth = asked.get(group) ?? 0;
        asked.set(group, nth + 1);
        const answer = says(
          group,
          nth,
          order.map((match) => Number(match[2])),
        );
        if (answer === null) return sendError(response, 400, "invalid_request", "no");
        answers.set(path.split("/")[3] as string, answer);
        const message = { role: "assistant", content: answer, refusal: null };
        send(response, { choices: [{ index: 0, message, finish_reason: "stop" }] });
      },
    ],
    [
      "PATCH /v1/batch/rollouts",
      ({ body }, response) => {
        const items = body.rollouts.map(({ id, ...change }: { id: string }) => {
          const rollout = Object.assign(rollouts.get(id)!, change);
          const trajectory = {
            ...{ rolloutId: id, model: "m", policy: "m@0", tools: null, histories: [] },
            messages: [{ role: "assistant", content: answers.get(id) ?? "" }],
            turns: [{ id: `c-${id}`, message: 0, text: null, finish_reason: "stop" }],
            ...{ reward: null, metrics: {}, metadata: {}, logs: [], startedAt: 1, durationMs: 1 },
            usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
          };
          return { rollout, trajectory };
        });
        sendItems(response, items);
      },
    ],
    ...routes,
  ]);
  onTestFinished(() => server.close());
  const policy = await server.hone({ maxRetries: 0 }).model({ name: "m" });
  const also: TrajectoryGroup[] = [];
  const how: ScoreHow = {
    ...{ mode: "train", policy, concurrency: 8, signal: new AbortController().signal },
    alsoTrain: (groups) => void also.push(...groups),
  };
  return { how, also, rollouts, seeds };
}
