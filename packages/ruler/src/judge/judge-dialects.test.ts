import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "../judging/score-group.ts";
import { readJudgePrompt } from "../testing/judge-prompt.ts";
import { answer } from "../testing/judge-steps.ts";

type Said = (text: string) => object;

it.each<[string, Said]>([
  [
    "content as a list of parts, with thinking",
    (text) => ({
      content: [
        { type: "thinking", thinking: [{ type: "text", text: "so" }] },
        { type: "text", text },
      ],
    }),
  ],
  [
    "content in several parts",
    (text) => ({
      content: [
        { type: "text", text: text.slice(0, 9) },
        { type: "text", text: text.slice(9) },
      ],
    }),
  ],
  [
    "thinking in the content",
    (text) => ({ content: `<think>\nThe first is {"better"}.\n</think>\n\n${text}` }),
  ],
  [
    "thinking that the template opened",
    (text) => ({ content: `The first is better.\n</think>\n\`\`\`json\n${text}\n\`\`\`` }),
  ],
  ["reasoning beside it", (text) => ({ content: text, reasoning: "so", refusal: null })],
])("a judge answers with %s", async (_, said) => {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => void (body += part.toString()));
    request.on("end", () => {
      const { messages } = JSON.parse(body) as { messages: never };
      const text = answer(readJudgePrompt(messages), ({ finalText }) => Number(finalText));
      const choice = { message: { role: "assistant", ...said(text) }, finish_reason: "stop" };
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ id: "x", model: "judge", choices: [choice] }));
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  try {
    const judge = { baseURL: `http://127.0.0.1:${port}/v1`, model: "judge", apiKey: "k" };
    const scored = await rulerScoreGroup(groupOf("0.1", "0.9"), judge, { cache: false });
    expect(rewardsOf(scored)).toEqual([0.1, 0.9]);
    expect(scored.judgement.calls).toBe(1);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
});
