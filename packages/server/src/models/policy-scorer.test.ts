import { HoneError, scoreRequestSchema, type ScoreRequest } from "@hone/core";
import { describe, expect, it } from "vitest";
import type { Model, Models } from "../policies/models.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { Scorer } from "../ports/scorer.ts";
import { createPolicyScorer } from "./policy-scorer.ts";

/** A token a character; the score of ids is how many there are. Policies from 1 on have a head, but for 2. */
function scoring() {
  const asked: { folder: string; items: readonly (readonly number[])[] }[] = [];
  const held: string[] = [];
  const verified: string[] = [];
  const scorer: Scorer = {
    list: async () => [{ name: "taste", maxTokens: 9, labels: ["LABEL_0"] }],
    score: async ({ model, items }) => ({
      object: "hone.scores",
      model: { name: model, maxTokens: 9, labels: ["LABEL_0"] },
      data: items.map(() => ({ score: -1, tokens: 1, truncated: false })),
    }),
    async scoreIds(folder, items) {
      asked.push({ folder, items });
      expect(held).toEqual(["critic@3"]);
      return items.map(({ length }) => length);
    },
  };
  const model = (name: string, base = "tiny"): Model => ({
    ...{ name, base, quantize: null, lora: { r: 1, alpha: 1 }, seed: 0, chatTemplateKwargs: null },
    ...{ learnt: 3, served: 3, cursor: null, createdAt: 0 },
  });
  const known = [model("critic"), model("taste"), model("foreign", "other")];
  const find = (name: string) => known.find((one) => one.name === name) ?? null;
  const models = {
    find,
    require: (name: string) => find(name)!,
    list: () => known,
    policy: (_name: string, step: number) =>
      step > 3 ? null : { removedAt: step === 1 ? 5 : null, step },
  } as unknown as Models;
  const renderer = {
    withTemplate: () => renderer,
    encode: async (text: string) => Array.from(text, (one) => one.charCodeAt(0)),
    async conversation(messages: readonly { content?: unknown }[]) {
      if (messages[0]?.content === "bad") {
        throw new HoneError("is bad", { code: "invalid_request", param: "messages[0]" });
      }
      return messages.flatMap(({ content }) => Array.from(String(content), () => 7));
    },
  } as unknown as Renderer;
  const made = createPolicyScorer({
    ...{ scorer, loaded: new Set(["taste"]), models, renderer },
    base: { name: "tiny", maxModelLen: 6 },
    checkpoints: {
      path: (name, step) => `/policies/${name}/${step}`,
      readManifest: async (_name, step) =>
        ({ files: step === 3 ? { "score.safetensors": { sha256: "", bytes: 1 } } : {} }) as never,
      verifyScoring: async (name, step) => void verified.push(`${name}@${step}`),
    },
    live: {
      hold: (policy) => void held.push(policy),
      release: (policy) => void held.splice(held.indexOf(policy), 1),
    },
  });
  const score = async (request: ScoreRequest) =>
    await made.score(scoreRequestSchema.parse(request), new AbortController().signal);
  return { made, score, asked, held, verified };
}

const user = (content: string) => ({ messages: [{ role: "user" as const, content }] });

describe("scores by policies with a head", () => {
  it("are of the newest served one, or of the one that is named", async () => {
    const { score, asked, held, verified } = scoring();
    for (const model of ["critic", "critic@3"]) {
      expect(await score({ model, items: [user("abc"), { text: "ab" }] })).toEqual({
        object: "hone.scores",
        model: { name: "critic@3", maxTokens: 6, labels: ["score"] },
        data: [
          { score: 3, tokens: 3, truncated: false },
          { score: 2, tokens: 2, truncated: false },
        ],
      });
    }
    expect(asked[0]).toEqual({
      folder: "/policies/critic/3",
      items: [
        [7, 7, 7],
        [97, 98],
      ],
    });
    expect([held, verified]).toEqual([[], ["critic@3"]]);
  });

  it("say what is wrong with the policy, the label or an item", async () => {
    const { score, held } = scoring();
    const refused = [
      ["critic@2", {}, { code: "invalid_request", param: "model" }, /no head/],
      ["critic@1", {}, { code: "policy_not_found" }, /retention removed it/],
      ["critic@9", {}, { code: "policy_not_found" }, /not served/],
      ["foreign", {}, { code: "base_mismatch" }, /of the base "other"/],
      ["critic", { label: "good" }, { code: "invalid_request", param: "label" }, /"score"/],
      [
        "critic",
        { items: [user("a"), user("bad")] },
        { param: "items[1].messages[0]" },
        /items\[1\]/,
      ],
      [
        "critic",
        { items: [user("a"), user("1234567")] },
        { code: "context_length_exceeded", param: "items[1]" },
        /7 tokens/,
      ],
    ] as const;
    for (const [model, rest, error, message] of refused) {
      const found = score({ model, items: [user("a")], ...rest } as ScoreRequest);
      await expect(found).rejects.toMatchObject({
        ...error,
        message: expect.stringMatching(message),
      });
    }
    expect(held).toEqual([]);
  });

  it("of what is too long are those of its end, or none", async () => {
    const { score, asked } = scoring();
    const items = [{ text: "12345678" }, { text: "1" }];
    expect((await score({ model: "critic", items, tooLong: "truncate" })).data).toEqual([
      { score: 6, tokens: 8, truncated: true },
      { score: 1, tokens: 1, truncated: false },
    ]);
    expect(asked[0]?.items[0]).toEqual(Array.from("345678", (one) => one.charCodeAt(0)));
    expect((await score({ model: "critic", items, tooLong: "null" })).data).toEqual([
      { score: null, tokens: 8, truncated: false },
      { score: 1, tokens: 1, truncated: false },
    ]);
  });

  it("leave the operator's reward models where they are, and stand in one list with them", async () => {
    const { made, score } = scoring();
    expect((await score({ model: "taste", items: [{ text: "a" }] })).data[0]?.score).toBe(-1);
    expect((await score({ model: "nobody", items: [{ text: "a" }] })).model.name).toBe("nobody");
    expect((await made.list()).map(({ name }) => name)).toEqual(["taste", "critic"]);
    expect(scoreRequestSchema.safeParse({ model: "a b", items: [{ text: "a" }] }).success).toBe(
      false,
    );
  });
});
