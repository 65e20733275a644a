import { Hone } from "@hone/client";

interface RolloutBody {
  id: string;
  group?: string;
  step?: number;
  status?: string;
  reward?: number;
  metrics?: Record<string, number>;
  metadata?: Record<string, string>;
}

type Metrics = (rollout: number) => Record<string, number>;

/** A server in this process that samples nothing: it gives a rollout metrics by its policy. */
export function fakeHone(given: {
  learnt: number;
  maxModelLen: number;
  base: Metrics;
  trained: Metrics;
}): Hone {
  const { learnt, maxModelLen } = given;
  const steps = new Map<string, number>();
  const counts = { base: 0, trained: 0 };
  const info = {
    ...{ object: "hone.model", name: "m", base: "b", lora: { r: 16, alpha: 32 }, learnt },
    ...{ served: learnt, cursor: null, operations: [], maxModelLen, createdAt: 0 },
  };

  function rolloutOf({ id, group, status, reward }: RolloutBody) {
    return {
      ...{ id, object: "rollout", model: "m", mode: "eval", status: status ?? "open" },
      ...{ group: group ?? null, reward: reward ?? null, policy: null, completions: 0 },
      ...{ baseURL: "http://hone/v1", leaseExpiresAt: null, createdAt: 0 },
    };
  }

  function trajectoryOf({ id, reward, metrics, metadata }: RolloutBody) {
    const step = steps.get(id) ?? learnt;
    const side = step === 0 ? "base" : "trained";
    const own = given[side](counts[side]++);
    return {
      ...{ rolloutId: id, model: "m", policy: `m@${step}`, messages: [], tools: null },
      ...{ histories: [], reward, metrics: { ...metrics, ...own }, metadata, logs: [] },
      usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
      ...{ startedAt: 0, durationMs: 1 },
    };
  }

  function answer(method: string, path: string, body: { rollouts: RolloutBody[] }): object {
    const [, policy] = /\/policies\/(\d+)$/.exec(path) ?? [];
    if (policy) return { checkpoint: `models/m/policies/${policy}` };
    if (path !== "/v1/batch/rollouts") return info;
    const data = body.rollouts.map((one) => {
      const ended = method === "PATCH";
      if (!ended && one.step !== undefined) steps.set(one.id, one.step);
      const trajectory = ended ? trajectoryOf(one) : null;
      return { rollout: rolloutOf(one), trajectory, error: null };
    });
    return { object: "list", data };
  }

  return new Hone({
    baseURL: "http://hone",
    apiKey: "key",
    fetch: async (input, init) => {
      const { pathname } = new URL(input);
      const body = typeof init?.body === "string" ? JSON.parse(init.body) : {};
      return Response.json(answer(init?.method ?? "GET", pathname, body));
    },
  });
}
