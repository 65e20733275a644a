import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { ChatMessage, HoneError, ScoreItem } from "@hone/core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import { combineRewards } from "./combine-rewards.ts";
import { rewardModel, type RewardModelOptions } from "./reward-model.ts";

interface Asked {
  key: string | undefined;
  body: { model: string; items: ScoreItem[]; tooLong: string; label?: string };
}
type Handler = (asked: Asked, response: ServerResponse) => void;

/** The route of a Hone server, and the ways in which it fails; what the real one does is tested end to end. */
describe("rewardModel", () => {
  const asked: Asked[] = [];
  let handlers: Handler[];
  let url: string;
  let close: () => Promise<void>;
  beforeEach(async () => {
    asked.length = 0;
    handlers = [];
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const body = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Asked["body"];
        const one = { key: request.headers.authorization, body };
        asked.push(one);
        (handlers.shift() ?? scoreByLength)(one, response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    vi.stubEnv("HONE_URL", url);
    vi.stubEnv("HONE_API_KEY", "hone-key");
    close = async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    };
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
    await close();
  });

  const textOf = (item: ScoreItem) =>
    "text" in item
      ? item.text
      : item.messages.map(({ content }) => (typeof content === "string" ? content : "")).join("");
  const answer = (response: ServerResponse, status: number, value: unknown, headers = {}) =>
    void response
      .writeHead(status, { "content-type": "application/json", ...headers })
      .end(JSON.stringify(value));
  const scoresOf = (items: ScoreItem[], truncated = false) => ({
    object: "hone.scores",
    model: { name: "m", maxTokens: 10, labels: ["LABEL_0"] },
    data: items.map((item) => ({ score: textOf(item).length, tokens: 20, truncated })),
  });
  const scoreByLength: Handler = ({ body }, response) =>
    answer(response, 200, scoresOf(body.items));
  const refuse =
    (status: number, error: object, headers = {}): Handler =>
    (_, response) =>
      answer(response, status, { error: { type: "x", param: null, ...error } }, headers);

  const task = (text: string): ChatMessage[] => [{ role: "user", content: text }];
  const groupOf = (...texts: string[]) =>
    group(texts.map((text) => trajectory([], { messages: task(text) })));
  const score = async (texts: string[], options: Partial<RewardModelOptions> = {}) => {
    const rewards = combineRewards([{ fn: rewardModel({ model: "m", ...options }) }], {
      concurrency: 100,
    });
    const { groups } = await rewards.score([groupOf(...texts)]);
    return groups[0]!.trajectories.map(({ reward }) => reward);
  };
  const failureOf = (work: Promise<unknown>) =>
    work.then(
      () => null,
      (error: unknown) => (error as HoneError).cause as HoneError,
    );

  it("asks for a group at once, and for no more at once than batchSize", async () => {
    const texts = Array.from({ length: 7 }, (_, n) => "x".repeat(n + 1));
    expect(await score(texts)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toEqual({
      key: "Bearer hone-key",
      body: {
        model: "m",
        items: texts.map((text) => ({ messages: task(text) })),
        tooLong: "error",
      },
    });
    expect(await score(texts, { batchSize: 3, label: "good" })).toEqual([1, 2, 3, 4, 5, 6, 7]);
    // They go out together, so any may arrive first.
    const sizes = asked.slice(1).map(({ body }) => body.items.length);
    expect(sizes.sort((a, b) => a - b)).toEqual([1, 3, 3]);
    expect(asked[1]!.body.label).toBe("good");
  });

  it("applies where there is something to score", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const input: RewardModelOptions["input"] = ({ messages }) => {
      const text = messages[0]!.content as string;
      return text === "skip" ? null : text === "empty" ? "" : text;
    };
    expect(await score(["ab", "skip", "empty"], { input })).toEqual([2, null, null]);
    expect(asked[0]!.body.items).toEqual([{ text: "ab" }]);
    expect(await score(["skip"], { input })).toEqual([null]);
    expect(asked).toHaveLength(1);
  });

  it("waits for a server that restarts, as long as it is told to", async () => {
    const away = { message: "It restarts.", code: "worker_unavailable" };
    handlers = [
      refuse(503, away, { "retry-after-ms": "5" }),
      (_, response) => void response.destroy(),
      refuse(429, { message: "Later.", code: "too_many_requests" }, { "retry-after-ms": "1" }),
    ];
    vi.spyOn(Math, "random").mockReturnValue(0);
    expect(await score(["abc"])).toEqual([3]);
    expect(asked).toHaveLength(4);
    handlers = [refuse(503, away, { "retry-after-ms": "1" })];
    const failure = await failureOf(score(["abc"], { maxRetries: 0 }));
    expect(failure).toMatchObject({ code: "worker_unavailable", status: 503 });
  });

  it("lets one trajectory fail alone", async () => {
    const second = {
      code: "context_length_exceeded",
      param: "items[1]",
      message: "items[1] has 20 tokens, and 'm' reads 10.",
    };
    handlers = [refuse(400, second)];
    const fn = rewardModel({ model: "m" });
    const all = groupOf("a", "bb", "ccc");
    const settled = await Promise.allSettled(
      all.trajectories.map(async (one, index) => fn(one, { group: all, index })),
    );
    expect(settled).toMatchObject([
      { value: 1 },
      {
        reason: {
          code: "context_length_exceeded",
          param: null,
          message: "The trajectory has 20 tokens, and 'm' reads 10.",
        },
      },
      { value: 3 },
    ]);
    expect(asked.map(({ body }) => body.items.length)).toEqual([3, 2]);
  });

  it("fails with what the server said, and never makes a failure a score", async () => {
    handlers = [refuse(404, { code: "model_not_found", message: "There is no reward model 'm'." })];
    expect(await failureOf(score(["a"]))).toMatchObject({
      code: "model_not_found",
      message: "There is no reward model 'm'.",
    });
    for (const wrong of [{}, { ...scoresOf([]), data: [] }, { ...scoresOf([]), data: [{}] }]) {
      handlers = [(_, response) => answer(response, 200, wrong)];
      expect(await failureOf(score(["a"]))).toMatchObject({ code: "invalid_response" });
    }
    const text: Handler = (_, response) => void response.writeHead(200).end("<html>");
    handlers = [text];
    expect(await failureOf(score(["a"]))).toMatchObject({ code: "invalid_response" });
    const silent: Handler = () => undefined;
    handlers = [silent];
    expect(await failureOf(score(["a"], { timeoutMs: 30 }))).toMatchObject({ code: "timeout" });
  });

  it("says once that it scores ends only, or tells whoever wants to know each", async () => {
    const warn = vi.spyOn(console, "warn").mockReturnValue();
    const cut: Handler = ({ body }, response) => answer(response, 200, scoresOf(body.items, true));
    handlers = [cut, cut];
    expect(await score(["a", "bb"], { tooLong: "truncate" })).toEqual([1, 2]);
    expect(warn.mock.calls).toEqual([[expect.stringContaining("reads 10 tokens")]]);
    const told: unknown[] = [];
    const options = {
      tooLong: "truncate",
      onTruncated: (cut_: unknown) => told.push(cut_),
    } as const;
    expect(await score(["a", "bb"], options)).toEqual([1, 2]);
    const cutOnce = { tokens: 20, maxTokens: 10 };
    expect(told).toEqual([cutOnce, cutOnce]);
    expect(warn).toHaveBeenCalledTimes(1);
    expect(asked[0]!.body.tooLong).toBe("truncate");
  });

  it("ends with its signal, and nobody else's", async () => {
    const stop = new AbortController();
    const silent: Handler = ({ body }, response) => {
      if (body.items.length === 1) scoreByLength({ key: "", body }, response);
      else stop.abort(new Error("enough"));
    };
    handlers = [silent, silent];
    const fn = rewardModel({ model: "m" });
    const all = groupOf("a", "bb", "ccc");
    const settled = await Promise.allSettled(
      all.trajectories.map(async (one, index) =>
        fn(one, { group: all, index, ...(index > 0 && { signal: stop.signal }) }),
      ),
    );
    expect(settled).toMatchObject([
      { value: 1 },
      { reason: { message: "enough" } },
      { reason: { message: "enough" } },
    ]);
  });

  it("refuses options that it does not know, and asks for a server where there is none", async () => {
    expect(() => rewardModel({ model: "m", tooLong: "cut" as never })).toThrow(/tooLong/);
    expect(() => rewardModel({ model: "m", best: 1 } as never)).toThrow(/best/);
    expect(() => rewardModel({ model: "m", batchSize: 0 })).toThrow(/batchSize/);
    vi.stubEnv("HONE_URL", "");
    vi.stubEnv("HONE_HOME", "/nowhere");
    expect(await failureOf(score(["a"]))).toMatchObject({
      code: "invalid_config",
      message: expect.stringContaining("npx @hone/server serve"),
    });
    expect(await score(["abcd"], { baseURL: `${url}/v1`, apiKey: "own" })).toEqual([4]);
    expect(asked[0]!.key).toBe("Bearer own");
  });

  it("sends HONE_API_KEY to the server that HONE_URL names, and to no other", async () => {
    const elsewhere = "http://other.example";
    const fetch = vi.fn<typeof globalThis.fetch>();
    expect(await failureOf(score(["a"], { baseURL: elsewhere, fetch }))).toMatchObject({
      code: "invalid_config",
      param: "apiKey",
      message: expect.stringContaining(elsewhere),
    });
    // Another port is another server.
    vi.stubEnv("HONE_URL", "http://127.0.0.1:1");
    const failure = await failureOf(score(["a"], { baseURL: url, fetch }));
    expect(failure).toMatchObject({ param: "apiKey" });
    expect(fetch).not.toHaveBeenCalled();
    expect(await score(["ab"], { baseURL: url, apiKey: "its-own" })).toEqual([2]);
    vi.stubEnv("HONE_URL", url.replace("127.0.0.1", "localhost"));
    expect(await score(["ab"], { baseURL: `${url}/v1` })).toEqual([2]);
    // Without HONE_URL the key is for the server that is named here.
    vi.stubEnv("HONE_URL", "");
    expect(await score(["ab"], { baseURL: url })).toEqual([2]);
    const bearers = ["Bearer its-own", "Bearer hone-key", "Bearer hone-key"];
    expect(asked.map(({ key }) => key)).toEqual(bearers);
  });
});
