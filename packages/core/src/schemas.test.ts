import { describe, expect, it } from "vitest";
import { chatRequestSchema, messageSchema } from "./chat.ts";
import { submitOperationSchema } from "./operation.ts";
import { patchRolloutSchema } from "./rollout.ts";
import { bradleyTerryConfigSchema, dpoConfigSchema, sftConfigSchema } from "./supervised.ts";
import { trainConfigSchema } from "./train-config.ts";

const messages = [{ role: "user", content: "hi" }];

describe("chat requests", () => {
  it("names an unknown option instead of ignoring it", () => {
    const result = chatRequestSchema.safeParse({ model: "m", messages, min_p: 0.1 });
    expect(result.error?.issues[0]).toMatchObject({ code: "unrecognized_keys", keys: ["min_p"] });
  });

  it("takes the keys that change nothing", () => {
    const body = { model: "m", messages, user: "u", metadata: { a: "b" }, store: true };
    expect(chatRequestSchema.safeParse(body).success).toBe(true);
  });

  it("keeps unknown keys inside messages and tools", () => {
    const message = { role: "tool", tool_call_id: "c", content: "r", name: "search" };
    expect(messageSchema.parse(message)).toEqual(message);
    const tool = { type: "function", function: { name: "f", "x-hint": 1 }, cache: true };
    const request = chatRequestSchema.parse({ model: "m", messages, tools: [tool] });
    expect(request.tools).toEqual([tool]);
  });

  it("refuses penalties, which no engine here applies", () => {
    const body = { model: "m", messages, presence_penalty: 0.5 };
    expect(chatRequestSchema.safeParse(body).error?.issues[0]?.path).toEqual(["presence_penalty"]);
  });
});

describe("rewards", () => {
  const train = (reward: unknown) =>
    submitOperationSchema.safeParse({
      clientToken: "t",
      op: { type: "train", groups: [{ id: "g", rollouts: [{ rolloutId: "ro_1", reward }] }] },
    });

  it("takes numbers and null, and nothing else", () => {
    expect(train(1.5).success).toBe(true);
    expect(train(null).success).toBe(true);
    for (const reward of [undefined, Number.NaN, Number.POSITIVE_INFINITY, "1"]) {
      expect(train(reward).error?.issues[0]?.path.at(-1)).toBe("reward");
    }
  });

  it("refuses NaN in a patch", () => {
    expect(patchRolloutSchema.safeParse({ reward: Number.NaN }).success).toBe(false);
    expect(patchRolloutSchema.safeParse({}).success).toBe(true);
  });
});

describe("train configuration", () => {
  it.each(["loss", "reward"])("refuses measureKl: false where the KL weighs in the %s", (klIn) => {
    const config = (more: object) => trainConfigSchema.safeParse({ type: "grpo", ...more });
    const refused = config({ beta: 0.1, klIn, measureKl: false }).error?.issues;
    expect(refused).toMatchObject([{ path: ["measureKl"] }]);
    expect(refused?.[0]?.message).toMatch(/beta is 0\.1/);
    expect(config({ beta: 0.1, klIn }).success).toBe(true);
    expect(config({ beta: 0, measureKl: false }).success).toBe(true);
  });

  it("has the documented defaults and refuses an unknown option by name", () => {
    const op = { type: "train", groups: [{ id: "g", rollouts: [] }] };
    const parsed = submitOperationSchema.parse({ clientToken: "t", op });
    expect(parsed.op).toMatchObject({
      config: {
        learningRate: 1e-4,
        warmupSteps: 5,
        maxStaleness: 4,
      },
    });
    const bad = { clientToken: "t", op: { ...op, config: { learning_rate: 1 } } };
    expect(submitOperationSchema.safeParse(bad).error?.issues[0]).toMatchObject({
      keys: ["learning_rate"],
    });
  });
});

describe("steps along gradients", () => {
  const issues = (config: object) =>
    submitOperationSchema.safeParse({ clientToken: "t", op: { type: "optim_step", config } }).error
      ?.issues;

  it("refuse an eps that moments in 8 bits are rounded past", () => {
    expect(issues({})).toBeUndefined();
    expect(issues({ optimizer: "adamw_8bit", eps: 1e-8 })).toBeUndefined();
    for (const given of [{}, { eps: 1e-12 }]) {
      expect(issues({ optimizer: "adamw_8bit", ...given })?.[0]).toMatchObject({
        path: ["op", "config", "eps"],
        message: expect.stringContaining("Give 1e-8"),
      });
    }
  });

  it("take one in training and supervised steps too, and leave it to the server where none is given", () => {
    const supervised = [sftConfigSchema, dpoConfigSchema, bradleyTerryConfigSchema];
    for (const schema of [trainConfigSchema, ...supervised]) {
      expect(schema.parse({})).not.toHaveProperty("eps");
      expect(schema.parse({ eps: 1 })).toMatchObject({ eps: 1 });
      expect(schema.parse({ optimizer: "adamw_8bit" })).not.toHaveProperty("eps");
      expect(schema.safeParse({ eps: 0 }).success).toBe(false);
      expect(schema.safeParse({ optimizer: "adamw_8bit", eps: 1e-12 }).error?.issues[0]).toEqual(
        expect.objectContaining({ path: ["eps"], message: expect.stringContaining("Give 1e-8") }),
      );
    }
  });
});
