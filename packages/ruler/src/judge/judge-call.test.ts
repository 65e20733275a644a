import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { laneOf } from "./lane.ts";
import { rulerScoreGroup } from "../judging/score-group.ts";
import type { ScoreGroupOptions } from "../judging/score-group.ts";
import * as steps from "../testing/judge-steps.ts";
import { useJudges } from "../testing/judges.test-support.ts";
import type { ScriptedJudge } from "../testing/scripted-judge.ts";

const start = useJudges(afterEach);
beforeEach(() => {
  vi.spyOn(console, "warn").mockReturnValue();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

const byNumber = steps.score(({ finalText }) => Number.parseFloat(finalText));
const two = groupOf("0.1", "0.9");
const options: ScoreGroupOptions = { cache: false, swallowErrors: false };

/** Without timers, which a test may have stopped. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

/** Retries without their pauses: what is tested is whether there are any. */
function withoutPauses(): void {
  vi.spyOn(Math, "random").mockReturnValue(0);
}

describe("retries", () => {
  it.each([
    ["408", steps.httpError(408)],
    ["409", steps.httpError(409)],
    ["429", steps.httpError(429, { code: "rate_limit_exceeded" })],
    ["500", steps.httpError(500)],
    ["529", steps.httpError(529)],
    ["429 in a body of status 200", steps.httpError(429, { inBody: true })],
    ["502 in a body of status 200", steps.httpError(502, { inBody: true })],
    ["a lost connection", steps.hangUp],
    ["a body that breaks off", steps.cutBody],
  ])("goes on after %s", async (_name, step) => {
    withoutPauses();
    const judge = await start({ script: [step, step, byNumber] });
    expect(rewardsOf(await rulerScoreGroup(two, judge.endpoint, options))).toEqual([0.1, 0.9]);
    expect(judge.requests).toHaveLength(3);
  });

  it.each([
    ["400", steps.httpError(400), "provider_error"],
    ["401", steps.httpError(401), "unauthorized"],
    ["an exhausted quota", steps.quotaExhausted(), "quota_exhausted"],
    ["402", steps.httpError(402), "quota_exhausted"],
    ["402 in a body of status 200", steps.httpError(402, { inBody: true }), "quota_exhausted"],
    [
      "a quota in a body of status 200",
      steps.httpError(429, { inBody: true, code: "insufficient_quota" }),
      "quota_exhausted",
    ],
    ["401 in a body of status 200", steps.httpError(401, { inBody: true }), "unauthorized"],
    [
      "x-should-retry: false",
      steps.httpError(500, { headers: { "x-should-retry": "false" } }),
      "provider_error",
    ],
  ])("does not go on after %s", async (_name, step, failure) => {
    const judge = await start({ script: [step] });
    await expect(rulerScoreGroup(two, judge.endpoint, options)).rejects.toMatchObject({ failure });
    expect(judge.requests).toHaveLength(1);
  });

  it("gives up after maxRetries, and says what the provider said", async () => {
    withoutPauses();
    const judge = await start({ otherwise: steps.httpError(503, { message: "Overloaded." }) });
    await expect(
      rulerScoreGroup(two, judge.endpoint, { ...options, maxRetries: 2 }),
    ).rejects.toThrow(/503.*Overloaded/);
    expect(judge.requests).toHaveLength(3);
  });

  it.each([
    ["", steps.tooManyRequests(0.4)],
    [
      ", also where the body has the 429",
      steps.httpError(429, { inBody: true, headers: { "retry-after": "0.4" } }),
    ],
  ])(
    "waits at least as long as Retry-After says%s, in every call to that judge",
    async (_, step) => {
      withoutPauses();
      const judge = await start({ script: [step], otherwise: byNumber });
      const { baseURL, model } = judge.endpoint;
      const first = rulerScoreGroup(two, judge.endpoint, { ...options, concurrency: 4 });
      await until(() => laneOf(baseURL, model, 4).quietUntil > 0);
      const second = rulerScoreGroup(groupOf("0.3", "0.4"), judge.endpoint, options);
      await Promise.all([first, second]);
      const [refused, ...later] = judge.requests.map(({ receivedAt }) => receivedAt);
      expect(later).toHaveLength(2);
      for (const time of later) expect(time - (refused ?? 0)).toBeGreaterThan(395);
    },
  );

  it("does not wait past the deadline", async () => {
    const judge = await start({ script: [steps.tooManyRequests(2_000)] });
    // It would wait for longer than a test may last.
    await expect(
      rulerScoreGroup(two, judge.endpoint, { ...options, deadlineMs: 1_000_000 }),
    ).rejects.toMatchObject({ failure: "rate_limited" });
  });

  it("ends a silent request at its limit, and the group at its deadline", async () => {
    withoutPauses();
    const slow = await start({ script: [steps.silence, byNumber] });
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const scoring = rulerScoreGroup(two, slow.endpoint, { ...options, timeoutMs: 1000 });
    await until(() => slow.requests.length === 1);
    vi.advanceTimersByTime(1000);
    await until(() => {
      // The pause before the next attempt has no length.
      vi.advanceTimersByTime(0);
      return slow.requests.length === 2;
    });
    expect(rewardsOf(await scoring)).toEqual([0.1, 0.9]);
    vi.useRealTimers();
    const dead = await start({ otherwise: steps.silence });
    await expect(
      rulerScoreGroup(two, dead.endpoint, { ...options, deadlineMs: 300 }),
    ).rejects.toMatchObject({ failure: "timeout" });
  });

  it("ends at once when the signal aborts, also where errors are swallowed", async () => {
    const judge = await start({ otherwise: steps.silence });
    const ending = new AbortController();
    const scoring = rulerScoreGroup(two, judge.endpoint, {
      cache: false,
      concurrency: 1,
      signal: ending.signal,
    });
    const queued = rulerScoreGroup(groupOf("0.3", "0.4"), judge.endpoint, {
      cache: false,
      concurrency: 1,
      signal: ending.signal,
    });
    await until(() => judge.requests.length === 1);
    ending.abort();
    await Promise.all(
      [scoring, queued].map((one) => expect(one).rejects.toMatchObject({ code: "aborted" })),
    );
    expect(judge.requests).toHaveLength(1);
  });

  it("makes no more calls at once than concurrency", async () => {
    const waiting: number[] = [];
    const judge: ScriptedJudge = await start({
      otherwise: steps.answerText(
        (prompt) => {
          // Those that came, less those that were answered before.
          waiting.push(judge.requests.length - waiting.length);
          return steps.answer(prompt, ({ finalText }) => Number.parseFloat(finalText));
        },
        // So that one too many has the time to come.
        { delayMs: 60 },
      ),
    });
    const groups = Array.from({ length: 6 }, (_, n) => groupOf(`0.${n}`, "0.9"));
    await Promise.all(
      groups.map((group) => rulerScoreGroup(group, judge.endpoint, { ...options, concurrency: 2 })),
    );
    expect(waiting).toHaveLength(6);
    expect(Math.max(...waiting)).toBeLessThanOrEqual(2);
  });
});

describe("structured output", () => {
  it("asks for the schema, and in plain words where the provider refuses it", async () => {
    const judge = await start({
      script: [
        steps.httpError(400, { message: "response_format json_schema is not supported" }),
        steps.httpError(400, { message: "Unknown parameter: response_format" }),
        byNumber,
        byNumber,
        byNumber,
      ],
    });
    expect(rewardsOf(await rulerScoreGroup(two, judge.endpoint, options))).toEqual([0.1, 0.9]);
    await rulerScoreGroup(groupOf("0.3", "0.4"), judge.endpoint, options);
    await rulerScoreGroup(groupOf("0.5", "0.6"), judge.endpoint, {
      ...options,
      structuredOutput: "json_object",
    });
    const formats = judge.requests.map(
      ({ body }) => (body["response_format"] as { type: string } | undefined)?.type,
    );
    expect(formats).toEqual(["json_schema", "json_object", undefined, undefined, undefined]);
    // Once for each form, and not again by the calls that come after.
    const warned = vi.mocked(console.warn).mock.calls.map(([text]) => String(text));
    expect(warned).toEqual([
      expect.stringMatching(/refuses this form of response_format .* any JSON object/),
      expect.stringMatching(/refuses this form of response_format .* plain words/),
    ]);
  });

  it("sends no half of a character, which a provider would refuse", async () => {
    const judge = await start({ script: [byNumber] });
    const rubric = `Be brief. ${"😀".slice(0, 1)}`;
    await rulerScoreGroup(two, judge.endpoint, { ...options, rubric });
    const sent = JSON.stringify(judge.requests[0]!.body);
    expect(sent).toContain("Be brief. \ufffd");
    expect(sent).not.toMatch(/[^\\]\\ud83d/);
  });

  it("sends the user's parameters, and none that the ruler sets", async () => {
    const judge = await start({ script: [byNumber] });
    await rulerScoreGroup(two, judge.endpoint, {
      ...options,
      structuredOutput: "none",
      parameters: { reasoning_effort: "low", max_completion_tokens: 500 },
    });
    const { messages: _messages, ...sent } = judge.requests[0]?.body ?? {};
    expect(sent).toEqual({
      model: "scripted",
      stream: false,
      reasoning_effort: "low",
      max_completion_tokens: 500,
    });
    await expect(
      rulerScoreGroup(two, judge.endpoint, { ...options, parameters: { model: "other" } }),
    ).rejects.toMatchObject({ code: "invalid_config" });
  });
});

describe("keys", () => {
  it("go to their own origin only, with nothing else of the environment", async () => {
    vi.stubEnv("OPENAI_API_KEY", "sk-openai");
    vi.stubEnv("OPENAI_ADMIN_KEY", "sk-admin");
    vi.stubEnv("OPENAI_ORG_ID", "org-canary");
    vi.stubEnv("OPENAI_PROJECT_ID", "proj-canary");
    vi.stubEnv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    vi.stubEnv("OPENAI_CUSTOM_HEADERS", "x-canary: header-canary");
    const judge = await start({ script: [byNumber], apiKey: "none" });
    const { baseURL, model } = judge.endpoint;
    await rulerScoreGroup(two, { baseURL, model }, options);
    const sent = JSON.stringify(judge.requests[0]);
    for (const canary of ["sk-", "canary"]) expect(sent).not.toContain(canary);
  });

  it("by prefix: the provider's URL with the provider's key", async () => {
    vi.stubEnv("OPENAI_API_KEY", "sk-openai");
    vi.stubEnv("OPENROUTER_API_KEY", "sk-router");
    const seen: string[] = [];
    const fetch: typeof globalThis.fetch = (input, init) => {
      const url = input instanceof Request ? input.url : input.toString();
      seen.push(`${url} ${new Headers(init?.headers).get("authorization")} ${init?.redirect}`);
      return Promise.resolve(new Response("{}", { status: 400 }));
    };
    for (const judge of ["openai/o4-mini", "openrouter/qwen/qwen3-32b"]) {
      await rulerScoreGroup(two, judge, { ...options, fetch }).catch(() => undefined);
    }
    expect(seen).toEqual([
      "https://api.openai.com/v1/chat/completions Bearer sk-openai error",
      "https://openrouter.ai/api/v1/chat/completions Bearer sk-router error",
    ]);
  });

  it("are missed by name, and a judge that is none is told the ones there are", async () => {
    vi.stubEnv("OPENAI_API_KEY", "");
    await expect(rulerScoreGroup(two, "openai/o3")).rejects.toThrow(/OPENAI_API_KEY/);
    await expect(rulerScoreGroup(two, "o3")).rejects.toThrow(/openai.*openrouter.*hone/);
    await expect(rulerScoreGroup(two, "toString/x")).rejects.toThrow(/is no judge/);
    await expect(
      rulerScoreGroup(two, { baseURL: "https://api.openai.com/v1", model: "o3" }),
    ).rejects.toThrow(/OPENAI_API_KEY/);
  });

  it("are not in errors, also where the provider repeats them", async () => {
    const judge = await start({
      script: [steps.httpError(401, { message: "Incorrect API key provided: test-key." })],
    });
    const error: unknown = await rulerScoreGroup(two, judge.endpoint, options).catch(
      (cause: unknown) => cause,
    );
    expect((error as Error).message).toMatch(/\[hidden\]/);
    expect((error as Error).message).not.toContain("test-key");
    // Causes and fields, as a log prints them.
    const printed = inspect(error, { depth: 10, showHidden: true });
    expect(printed).toMatch(/401.*\[hidden\]/);
    expect(printed).not.toContain("test-key");
  });

  it("of the environment are not in errors either, nor cut in two", async () => {
    vi.stubEnv("OPENROUTER_API_KEY", "sk-or-secret-of-another");
    const message = `${"x".repeat(490)} sk-or-secret-of-another`;
    const judge = await start({ script: [steps.httpError(400, { message })] });
    const error: unknown = await rulerScoreGroup(two, judge.endpoint, options).catch(
      (cause: unknown) => cause,
    );
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain("sk-or");
  });

  it("that a fetch of one's own puts into its error are not in its cause", async () => {
    const judge = await start({});
    const fetch = (_: unknown, init?: RequestInit): Promise<Response> => {
      const sent = new Headers(init?.headers).get("authorization");
      return Promise.reject(new TypeError("fetch failed", { cause: { request: { sent } } }));
    };
    const error: unknown = await rulerScoreGroup(two, judge.endpoint, {
      ...options,
      maxRetries: 0,
      fetch,
    }).catch((cause: unknown) => cause);
    const printed = inspect(error, { depth: 10, showHidden: true });
    expect(printed).toContain("Bearer [hidden]");
    expect(printed).not.toContain("test-key");
  });

  it("in a URL are refused, and not said", async () => {
    const baseURL = "https://user:pass-canary@judge.test/v1";
    const error: unknown = await rulerScoreGroup(two, { baseURL, model: "m" }, options).catch(
      (cause: unknown) => cause,
    );
    expect(error).toMatchObject({ code: "invalid_config", param: "baseURL" });
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain("canary");
  });

  it("do not follow a redirect", async () => {
    const judge = await start({ otherwise: byNumber });
    const redirecting = createServer((_request, response) => {
      response.writeHead(307, { location: `${judge.endpoint.baseURL}/chat/completions` }).end();
    });
    await new Promise<void>((resolve) => redirecting.listen(0, "127.0.0.1", resolve));
    const { port } = redirecting.address() as AddressInfo;
    try {
      await expect(
        rulerScoreGroup(
          two,
          { ...judge.endpoint, baseURL: `http://127.0.0.1:${port}/v1` },
          { ...options, maxRetries: 0 },
        ),
      ).rejects.toMatchObject({ failure: "unreachable" });
      expect(judge.requests).toHaveLength(0);
    } finally {
      await new Promise((resolve) => redirecting.close(resolve));
    }
  });
});
