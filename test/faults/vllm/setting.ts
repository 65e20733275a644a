import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import OpenAI from "openai";
import { gather, type Model, type RolloutModel } from "@hone/client";
import type { EngineInfo } from "@hone/core";
import { startCli } from "../../../packages/server/src/testing/run-cli.ts";
import {
  spoken,
  testBase,
  trainedAdapters,
} from "../../../packages/server/src/testing/running-engine.ts";
import { startTestServer, type TestServer } from "../../support/server.ts";

type Cli = ReturnType<typeof startCli>;

/** What the streams that go on all the time have met. */
interface Traffic {
  answers: number;
  /** Given up, although the client had tried again. */
  failed: string[];
  /** Answers with other tokens than those of the policy that they name. */
  mixed: number;
}

/** A server with a vLLM of its own and one that joined, under traffic: its policies say one token each. */
export interface Setting {
  server: TestServer;
  /** The engine that joined, as long as it runs. */
  sidecar(): Cli;
  /** Starts it again, as a service manager does. */
  startSidecar(): Promise<void>;
  /** Where it keeps its key and its adapters. */
  sidecarFolder: string;
  traffic: Traffic;
  /** A policy that says the other token: an operation of the real server. Resolves to how it ended. */
  publish(): Promise<{ status: string; error?: string; seconds: number }>;
  importFolder(folder: string): Promise<{ status: string; error?: string; seconds: number }>;
  /** The adapters that it is made of; a copy may be damaged. */
  adapterCopy(): string;
  engine(name: string): Promise<EngineInfo>;
  component(name: string): Promise<{ state: string; pid?: number; restarts?: number }>;
  /** One step of a model of its own: rollouts on whatever engine takes them, training, publication. */
  trainStep(): Promise<string>;
  close(): Promise<void>;
}

export const joinedName = "joined";
export const ownName = "engine";
const streams = 4;
const answerTokens = 16;

export async function startSetting(log: (line: string) => void): Promise<Setting> {
  const folder = mkdtempSync(join(tmpdir(), "hone-vllm-faults-"));
  const adapters = await trainedAdapters();
  const dataDir = join(folder, "server");
  const imports = join(dataDir, "imports");
  mkdirSync(imports, { recursive: true });
  for (const token of Object.values(spoken)) {
    cpSync(join(adapters, `say-${token}`), join(imports, `say-${token}`), { recursive: true });
  }
  log("the server starts its vLLM");
  const server = await startTestServer(dataDir, { engine: "vllm", maxModelLen: 512 });
  const sidecarFolder = join(folder, "joined");
  let sidecar: Cli | null = null;
  const closing = new AbortController();
  const traffic: Traffic = { answers: 0, failed: [], mixed: 0 };
  let copies = 0;

  const json = async (path: string, method = "GET", body?: unknown): Promise<unknown> => {
    const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
    const response = await server.fetch(path, init);
    const text = await response.text();
    // A server with a part that is away answers 503 and says which.
    if (!response.ok && path !== "/health")
      throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  };

  async function startSidecar(): Promise<void> {
    const { token } = (await json("/v1/engines/tokens", "POST", {})) as { token: string };
    sidecar = startCli(
      [
        ...["engine", "--join", server.url, "--name", joinedName, "--base", testBase],
        ...["--data-dir", sidecarFolder, "--max-loras", "6"],
      ],
      { HONE_JOIN_TOKEN: token, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" },
    );
  }

  async function importFolder(path: string) {
    const began = performance.now();
    const made = (await json("/v1/models/m/operations", "POST", {
      ...{ clientToken: `import-${++copies}-${Date.now()}`, op: { type: "import", path } },
    })) as { id: string };
    for (;;) {
      const now = (await json(`/v1/operations/${made.id}`)) as {
        status: string;
        error?: { code: string; message: string } | null;
      };
      if (!["queued", "running"].includes(now.status)) {
        const { status, error } = now;
        const seconds = (performance.now() - began) / 1000;
        return { status, ...(error && { error: `${error.code}: ${error.message}` }), seconds };
      }
      await delay(100);
    }
  }

  async function publish() {
    const { learnt } = (await json("/v1/models/m/state")) as { learnt: number };
    return await importFolder(join(imports, `say-${tokenOf(learnt + 1)}`));
  }

  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 10 });
  async function stream(nth: number): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        const answer = await client.completions.create({
          ...{ model: "m", prompt: [100 + nth, 7, 9], max_tokens: answerTokens, temperature: 0 },
          ...({ return_token_ids: true } as object),
        });
        traffic.answers++;
        const step = Number(answer.model.split("@")[1]);
        const token = tokenOf(step);
        const { token_ids: ids } = answer.choices[0] as unknown as { token_ids: number[] };
        if (step > 0 && ids.some((id) => id !== token)) traffic.mixed++;
      } catch (error) {
        if (closing.signal.aborted) return;
        traffic.failed.push((error as Error).message);
        await delay(1_000);
      }
    }
  }

  log("an engine joins");
  await startSidecar();
  const engine = async (name: string): Promise<EngineInfo> => {
    const { data } = (await json("/v1/engines")) as { data: EngineInfo[] };
    const found = data.find((one) => one.name === name);
    if (found) return found;
    throw new Error(`there is no engine ${name}`);
  };
  for (;;) {
    const now = await engine(joinedName).catch(() => null);
    if (now?.state === "serving") break;
    if (sidecar!.child.exitCode !== null) throw new Error((await sidecar!.ended).error);
    await delay(500);
  }
  const words = await server.hone.model({ name: "words" });
  await server.hone.model({ name: "m", lora: { r: 8, alpha: 16 } });
  await publish();
  const running = Array.from({ length: streams }, (_, nth) => stream(nth));

  return {
    ...{ server, sidecarFolder, traffic, startSidecar, publish, importFolder },
    sidecar: () => sidecar!,
    adapterCopy() {
      const copy = join(imports, `copy-${++copies}`);
      cpSync(join(adapters, `say-${spoken.b}`), copy, { recursive: true });
      return copy;
    },
    engine,
    async component(name) {
      const { components } = (await json("/health")) as { components: Record<string, never> };
      return components[name]!;
    },
    trainStep: () => trainStep(words),
    async close() {
      closing.abort();
      await Promise.all(running);
      sidecar?.child.kill("SIGTERM");
      await sidecar?.ended;
      await server.close();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** What policy m@N says. */
const tokenOf = (step: number): number => (step % 2 === 1 ? spoken.a : spoken.b);

async function trainStep(model: Model): Promise<string> {
  const play = async (rollout: RolloutModel): Promise<{ reward: number }> => {
    const connection = rollout.connection();
    const completion = await new OpenAI(connection).chat.completions.create({
      ...{ model: connection.model, max_tokens: 4 },
      messages: [{ role: "user", content: "Say a word." }],
    });
    return { reward: completion.choices[0]?.message.content?.length ?? 0 };
  };
  const groups = await gather(model, play, [{}], { groupSize: 8, concurrency: 4 });
  const options = { learningRate: 1e-3, warmupSteps: 0, normalizerTokens: 8 };
  const { policy, trained, reasons } = await model.train(groups, options);
  return trained ? policy : `nothing trained: ${JSON.stringify(reasons)}`;
}

/** Damages the weights of an adapter's folder. */
export function damage(folder: string, how: "flip" | "cut" | "nan"): void {
  const file = join(folder, "adapter_model.safetensors");
  let bytes = readFileSync(file);
  if (how === "flip") bytes[bytes.length - 2]! ^= 0x10;
  if (how === "cut") bytes = bytes.subarray(0, bytes.length - 100);
  if (how === "nan") bytes.writeFloatLE(NaN, bytes.length - 8);
  writeFileSync(file, bytes);
}
