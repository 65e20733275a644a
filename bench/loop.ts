// `pnpm bench` — what the loop costs on this machine: decode, training, publish, and the CPU that a turn
// takes outside the worker (agent, gateway, renderer, ledger). Figures are medians of three rounds.
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { gather, type RolloutModel } from "@hone/client";
import { findEnvironment } from "@hone/server";
import OpenAI from "openai";
import { base, startTestServer } from "../test/support/server.ts";

parseArgs({ options: {} }); // it has none
const rounds = 3;
const median = (values: number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** CPU seconds of our renderer process, which is a child of this one. */
async function rendererCpu(): Promise<number> {
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!command.includes("hone_worker.renderer")) continue;
    const stat = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
    if (Number(stat[1]) !== process.pid) continue;
    return (Number(stat[11]) + Number(stat[12])) / 100;
  }
  throw new Error("no renderer process found: this benchmark reads /proc and needs Linux");
}

const server = await startTestServer();
const figures: Record<string, string> = {};
try {
  // Decode: an adapter that never ends its answer, so that every stream is as long as it may be.
  const imports = join(server.dataDir, "imports");
  await mkdir(imports, { recursive: true });
  await promisify(execFile)(
    await findEnvironment(),
    [at("../test/support/say_token.py"), base, imports, "a"],
    {
      env: { ...process.env, PYTHONPATH: at("../packages/server/worker"), HF_HUB_OFFLINE: "1" },
    },
  );
  const letters = await server.hone.model({ name: "letters" });
  await server.fetch("/v1/models/letters/operations", {
    method: "POST",
    body: JSON.stringify({ clientToken: "a", op: { type: "import", path: join(imports, "a") } }),
  });
  while ((await letters.info()).served < 1) await new Promise((resolve) => setTimeout(resolve, 50));
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key });
  const decode = async (streams: number): Promise<number> => {
    const start = performance.now();
    const answers = await Promise.all(
      Array.from({ length: streams }, () =>
        client.chat.completions.create({
          model: "letters",
          messages: [{ role: "user", content: "Say a word." }],
          max_tokens: 384,
        }),
      ),
    );
    const tokens = answers.reduce((sum, answer) => sum + (answer.usage?.completion_tokens ?? 0), 0);
    return tokens / ((performance.now() - start) / 1000);
  };
  await decode(1);
  for (const streams of [1, 32]) {
    const measured: number[] = [];
    for (let round = 0; round < rounds; round++) measured.push(await decode(streams));
    figures[`decode, ${streams} at once`] = `${median(measured).toFixed(0)} tokens/s`;
  }

  // Turns: conversations of ten short turns, so that the worker's own part is small.
  const model = await server.hone.model({ name: "turns" });
  let turns = 0;
  const talk = async (rollout: RolloutModel): Promise<number> => {
    const connection = rollout.connection();
    const openai = new OpenAI(connection);
    const messages: OpenAI.ChatCompletionMessageParam[] = [];
    let length = 0;
    for (let turn = 0; turn < 10; turn++) {
      messages.push({ role: "user", content: "Say a word." });
      const answer = await openai.chat.completions.create({
        model: connection.model,
        messages,
        max_tokens: 4,
      });
      if (answer.choices[0]) messages.push(answer.choices[0].message);
      length += answer.choices[0]?.message.content?.length ?? 0;
      turns++;
    }
    return length;
  };
  await gather(model, talk, [{}], { groupSize: 16, mode: "eval" });
  const perTurn: number[] = [];
  const training: number[] = [];
  const publishing: number[] = [];
  for (let round = 0; round < rounds; round++) {
    turns = 0;
    const before = process.cpuUsage();
    const renderer = await rendererCpu();
    const groups = await gather(model, talk, [{}, {}, {}, {}], { groupSize: 16 });
    const cpu = process.cpuUsage(before);
    const seconds = (cpu.user + cpu.system) / 1e6 + ((await rendererCpu()) - renderer);
    perTurn.push((seconds * 1000) / turns);
    let committed = 0;
    const result = await model.train(groups, {
      onEvent: (event) => {
        if (event.type === "committed") committed = event.at;
        if (event.type === "published") publishing.push(event.at - committed);
      },
    });
    training.push(
      (result.metrics["train_tokens"] ?? 0) / (result.metrics["step_time"] ?? Number.NaN),
    );
  }
  figures["CPU per turn outside the worker"] =
    `${median(perTurn).toFixed(2)} ms (client, gateway, ledger, renderer)`;
  figures["training"] = `${median(training).toFixed(0)} tokens/s`;
  figures["publish, commit to served"] = `${median(publishing).toFixed(0)} ms`;
  console.table(figures);
} finally {
  await server.close();
}
