import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HoneError, newId } from "@hone/core";
import { Hono } from "hono";
import Database from "libsql";
import { pino } from "pino";
import { encodeSafetensors } from "../step-data/safetensors.ts";
import { answerTo, testProbe } from "./adapters.ts";
import { createEnginePool, type EnginePool } from "../engines/pool.ts";
import type { AppEnv } from "../http/env.ts";
import { installErrors } from "../http/errors.ts";
import type { Engine } from "../ports/engine.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import type { ProbeAnswer } from "../ports/live-set.ts";
import type { Trainer } from "../ports/trainer.ts";
import { openState, type State, type StateOptions } from "../state.ts";

export const silent = pino({ level: process.env["HONE_TEST_LOG"] ?? "silent" });

const testBase = { name: "base", dtype: "float32" as const };

/** An engine's list of adapters, for tests in which nothing is sampled. */
export interface AdapterList extends Engine {
  names: Set<string>;
  /** The folder that each name was loaded from last. */
  roots: Map<string, string>;
  /** What it was told, in order. */
  calls: string[];
  /** Refuses the next load. */
  failNext: HoneError | null;
  /** What it answers to a probe. */
  answers: ProbeAnswer;
}

export function adapterList(): AdapterList {
  const list: AdapterList = {
    kind: "embedded",
    names: new Set(),
    roots: new Map(),
    calls: [],
    failNext: null,
    answers: testProbe.policy,
    info: () => Promise.resolve({ base: "base", maxModelLen: 512 }),
    async *generate({ promptLogprobs }) {
      if (!promptLogprobs) {
        throw new HoneError("nothing is sampled here", { code: "engine_unavailable" });
      }
      yield answerTo(list.answers);
    },
    load({ policy, path }) {
      list.calls.push(`load ${policy}`);
      const failure = list.failNext;
      list.failNext = null;
      if (failure) return Promise.reject(failure);
      if (list.names.has(policy)) {
        return Promise.reject(new HoneError("loaded twice", { code: "bad_adapter", status: 400 }));
      }
      list.names.add(policy);
      list.roots.set(policy, path);
      return Promise.resolve();
    },
    unload(policy) {
      list.calls.push(`unload ${policy}`);
      list.names.delete(policy);
      return Promise.resolve();
    },
    served: () =>
      Promise.resolve(new Map([...list.names].map((name) => [name, list.roots.get(name) ?? ""]))),
  };
  return list;
}

/** A trainer that writes files and computes nothing, for tests of what is around a step. */
export interface FileTrainer extends Trainer {
  trained: Uint8Array[];
  /** Runs instead of the next steps, first come first. */
  before: ((signal: AbortSignal) => Promise<void>)[];
  /** Fails before it takes the operation. */
  away: boolean;
}

export function fileTrainer(): FileTrainer {
  const trainer: FileTrainer = {
    trained: [],
    before: [],
    away: false,
    async checkObjective({ name }) {
      throw new HoneError(`There is no objective ${name}.`, { code: "invalid_request" });
    },

    async initAdapter({ staging, r, alpha, seed }) {
      const config = { peft_type: "LORA", r, lora_alpha: alpha, target_modules: ["q_proj"] };
      await writeFile(join(staging, "adapter_config.json"), JSON.stringify(config));
      const weights = { a: { type: "F32", data: Float32Array.of(seed) } } as const;
      await writeFile(join(staging, "adapter_model.safetensors"), encodeSafetensors(weights, {}));
      return ["adapter_config.json", "adapter_model.safetensors"];
    },
    probe: () => Promise.resolve(testProbe),
    async logprobs(_folder, sequences) {
      return sequences.map(({ length }) => [...Array(length - 3).fill(-9), -0.5, -0.25]);
    },
    async train({ stepData, signal, onEvent, onAccepted }) {
      if (!trainer.away) onAccepted();
      await trainer.before.shift()?.(signal);
      trainer.trained.push(stepData);
      const header = Buffer.from(stepData).toString(
        "utf8",
        8,
        8 + Number(Buffer.from(stepData).readBigUInt64LE()),
      );
      const { __metadata__ } = JSON.parse(header) as { __metadata__: { config: string } };
      const config = JSON.parse(__metadata__.config) as { staging: string; step: number };
      onEvent({ event: "microbatch", done: 1, total: 1, tokens: 3 });
      onEvent({ event: "stage", stage: "forward_backward", seconds: 0.001 });
      await writeFile(join(config.staging, "adapter_model.safetensors"), `step ${config.step}`);
      await writeFile(join(config.staging, "optimizer.safetensors"), `moments of ${config.step}`);
      return {
        metrics: { loss: 0.5 },
        logprobs: [[-0.5]],
        files: ["adapter_model.safetensors", "optimizer.safetensors"],
      };
    },
  };
  return trainer;
}

/** A server without HTTP and children: what its routes answer, and what is behind them. */
export interface TestState {
  state: State;
  /** Of one, "engine", where there are not more; "engine 2" is not admitted yet. */
  engines: EnginePool;
  dataDir: string;
  /** JSON in, status and JSON out. */
  call(method: string, path: string, body?: unknown, key?: string): Promise<Reply>;
  app: Hono<AppEnv>;
  /** Submits an operation of the model m, under a token of its own. */
  submit(op: object, rest?: object, key?: string): Promise<Reply>;
  /** Submits a step on two rollouts with the rewards 0 and 1. Gives its operation's id. */
  submitStep(rest?: object): Promise<string>;
  /** Does so many of these steps. */
  train(steps?: number): Promise<void>;
  /** The state of the model m. */
  model(): Promise<Reply["json"]>;
  close(): Promise<void>;
  /** Opens the data directory again after `close`, as a restart does. */
  open(changes?: Partial<StateOptions>): Promise<void>;
  /** Both. Gives this. */
  reopen(): Promise<TestState>;
}

export interface Reply {
  status: number;
  // oxlint-disable-next-line typescript/no-explicit-any
  json: any;
}

export async function temporaryFolder(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "hone-state-"));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/**
 * By another connection than the server's: a trigger that raises makes the database refuse some writes, as a
 * full disk does.
 */
export async function onDatabase(dataDir: string, sql: string): Promise<void> {
  for (let nth = 1; ; nth++) {
    const database = new Database(join(dataDir, "hone.db"));
    try {
      database.exec(sql);
      return;
    } catch (error) {
      // The server's transaction needs this thread to end.
      if (nth === 3000 || !/locked/.test((error as Error).message)) throw error;
    } finally {
      database.close();
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export async function openTestState(
  dataDir: string,
  given: Partial<StateOptions> &
    Pick<StateOptions, "trainer"> & { engine: () => Engine | Engine[] },
): Promise<TestState> {
  const { engine, ...options } = given;
  let isOpen = false;
  let tokens = 0;
  async function opened(changes: Partial<StateOptions> = {}) {
    const engines = createEnginePool({
      replicas: [engine()].flat().map((one, at) => {
        return {
          name: at === 0 ? "engine" : `engine ${at + 1}`,
          engine: one,
          requireUp: () => undefined,
        };
      }),
      restore: () => state.onEngineReady(),
      base: () => testBase,
      log: silent,
    });
    const state: State = await openState({
      engines,
      dataDir,
      base: { ...testBase, maxModelLen: 512, vocabSize: 1000 },
      publicURL: () => "http://127.0.0.1:9",
      log: silent,
      ...options,
      ...changes,
    });
    isOpen = true;
    const app = new Hono<AppEnv>();
    installErrors(app, silent);
    app.use(async (c, next) => {
      c.set("keyId", c.req.header("x-test-key") ?? "local");
      await next();
    });
    app.route("/", state.routes);
    await engines.admit("engine");
    return { state, engines, app };
  }
  const server: TestState = {
    ...(await opened()),
    dataDir,
    async call(method, path, body, key) {
      const response = await server.app.request(path, {
        method,
        headers: { "content-type": "application/json", ...(key ? { "x-test-key": key } : {}) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return { status: response.status, json: await response.json() };
    },
    submit: (op, rest = {}, key) =>
      server.call(
        "POST",
        "/v1/models/m/operations",
        { clientToken: `t${tokens++}`, op, ...rest },
        key,
      ),
    async submitStep(rest = {}) {
      const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
      return (await server.submit({ type: "train", groups, ...rest })).json.id;
    },
    async train(steps = 1) {
      for (let step = 0; step < steps; step++) {
        const { status, error } = await ended(server, await server.submitStep());
        if (status !== "succeeded") throw new Error(`the step has ${status}: ${error?.message}`);
      }
    },
    model: async () => (await server.call("GET", "/v1/models/m/state")).json,
    async close() {
      if (!isOpen) return;
      isOpen = false;
      await server.state.close();
    },
    open: async (changes) => void Object.assign(server, await opened(changes)),
    async reopen() {
      await server.close();
      await server.open();
      return server;
    },
  };
  return server;
}

/** A delivered completion as the gateway records it; the ids of tokens are made up. */
export function completionOf(
  rolloutId: string,
  given: Partial<LedgerCompletion> = {},
): LedgerCompletion {
  return {
    id: newId("cmpl"),
    rolloutId,
    seq: 0,
    parentId: null,
    promptSuffix: Int32Array.of(1, 2, 3),
    sampled: Int32Array.of(4, 5),
    logprobs: Float32Array.of(-0.5, -0.25),
    policy: "m@0",
    temperature: 1,
    topP: 1,
    seed: null,
    constrained: false,
    finishReason: "stop",
    choice: 0,
    choices: 1,
    messages: [{ role: "user", content: "2 + 2?" }],
    tools: null,
    answer: { role: "assistant", content: "4" },
    delivered: true,
    splitReason: null,
    kind: "chat",
    createdAt: 1,
    ...given,
  };
}

/** A finished rollout with one completion each, of the rewards given. */
export async function rolloutsWith(
  test: TestState,
  rewards: readonly (number | null)[],
  given: Partial<LedgerCompletion> = {},
): Promise<{ rolloutId: string; reward: number | null }[]> {
  const members = [];
  for (const reward of rewards) {
    const { json } = await test.call("POST", "/v1/rollouts", { model: "m" });
    const lease = await test.state.router.leaseForRollout("local", json.id, "m");
    await test.state.ledger.append([completionOf(json.id, { policy: lease.policy, ...given })]);
    lease.release();
    await test.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished" });
    members.push({ rolloutId: json.id as string, reward });
  }
  return members;
}

export async function ended(test: TestState, id: string): Promise<Reply["json"]> {
  for (;;) {
    const { json } = await test.call("GET", `/v1/operations/${id}`);
    if (json.status !== "queued" && json.status !== "running") return json;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
