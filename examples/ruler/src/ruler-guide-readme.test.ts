import { score, ScriptedJudge } from "@hone/ruler/testing";
import { afterEach, expect, it, vi } from "vitest";

afterEach(() => void vi.unstubAllGlobals().unstubAllEnvs());

it("the README's snippet scores a group with OpenAI's judge and key", async () => {
  const judge = await ScriptedJudge.start({
    script: [score(({ finalText }) => (finalText.includes("9:40") ? 0.9 : 0.2))],
  });
  vi.stubEnv("HONE_HOME", "/dev/null/no-home");
  vi.stubEnv("OPENAI_API_KEY", judge.endpoint.apiKey);
  const urls: unknown[] = [];
  const { fetch } = globalThis;
  vi.stubGlobal("fetch", (url: unknown, init?: RequestInit) => {
    urls.push(url);
    return fetch(`${judge.endpoint.baseURL}/chat/completions`, init);
  });
  const { scored } = await import("./ruler-guide-readme.ts");
  expect(scored.trajectories.map(({ reward }) => reward)).toEqual([0.9, 0.2]);
  expect(urls).toEqual(["https://api.openai.com/v1/chat/completions"]);
  expect(judge.requests[0]?.body.model).toBe("o4-mini");
  judge.assertDone();
  await judge.close();
});
