import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { groupOf } from "./example-group.ts";
import { helpful } from "./rewards-guide.ts";

interface Asked {
  model: string;
  label?: string;
  tooLong: string;
  items: { text?: string; messages?: { content: string }[] }[];
}

const asked: Asked[] = [];
/** The reward models of a Hone server: one likes long conversations, the other the word "kind". */
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Asked;
    asked.push(body);
    const data = body.items.map(({ text, messages }) => ({
      score: messages ? messages.length : text?.includes("kind") ? 1 : 0,
      tokens: 9,
      truncated: false,
    }));
    const model = { name: body.model, maxTokens: 512, labels: ["rude", "neutral", "kind"] };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ object: "hone.scores", model, data }));
  });
});

beforeAll(async () => {
  await once(server.listen(0, "127.0.0.1"), "listening");
  vi.stubEnv("HONE_URL", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv("HONE_API_KEY", "key");
});
afterAll(() => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  server.close();
});

it("scores the conversation by one reward model and the last answer by another", async () => {
  const { groups, metrics } = await helpful.score([groupOf(["At 9:40.", "How kind of you!"])]);
  expect(groups[0]?.trajectories.map(({ reward }) => reward)).toEqual([2, 2.2]);
  expect(metrics).toMatchObject({ "rewards/helpful/mean": 2, "rewards/kind/mean": 0.5 });
  const byModel = new Map(asked.map((body) => [body.model, body]));
  expect(asked).toHaveLength(2);
  expect(byModel.get("helpful")).toMatchObject({
    tooLong: "error",
    items: [
      { messages: [{}, { content: "At 9:40." }] },
      { messages: [{}, { content: "How kind of you!" }] },
    ],
  });
  expect(byModel.get("tone")).toMatchObject({
    label: "kind",
    tooLong: "truncate",
    items: [{ text: "At 9:40." }, { text: "How kind of you!" }],
  });
});
