import { gather } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { makeTalker } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  await makeTalker(server, "hang");
});
afterAll(() => server?.close());

async function workerPid(): Promise<number> {
  const health = (await (await server.fetch("/health")).json()) as {
    components: { worker: { pid: number } };
  };
  return health.components.worker.pid;
}

// With the deadlines that a server has by default: the worker is silent for a minute before it is ended.
it("a step whose worker hangs is done again by the next worker", async () => {
  const model = await server.hone.model({ name: "hang" });
  let played = 0;
  const groups = await gather(
    model,
    async (rolloutModel) => {
      const { model: name, ...connection } = rolloutModel.connection();
      const messages = [{ role: "user" as const, content: "Count." }];
      await new OpenAI(connection).chat.completions.create({
        model: name,
        messages,
        max_tokens: 8,
      });
      played += 1;
      return played % 2;
    },
    [{}],
    { groupSize: 4 },
  );
  const pid = await workerPid();
  let stopped = false;
  const result = await model.train(groups, {
    onEvent(event) {
      if (stopped || event.type !== "stage" || event.stage !== "pack") return;
      stopped = true;
      process.kill(pid, "SIGSTOP");
    },
  });
  expect(stopped).toBe(true);
  expect(result.trained).toBe(true);
  expect(await workerPid()).not.toBe(pid);
});
