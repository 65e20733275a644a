import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createHttpEngine, type HttpEngine } from "../engines/http-engine.ts";
import type { ProbeAnswer } from "../ports/live-set.ts";
import { testProbe } from "./adapters.ts";

/** An engine process in small: an HTTP server that keeps the list of its adapters, and says its own name. */
export interface ListedEngine {
  name: string;
  /** Without `/v1`. */
  url: string;
  engine: HttpEngine;
  /** Adapters and the folders that they were loaded from. Cleared by a restart. */
  adapters: Map<string, string>;
  /** What it was told, in order. */
  calls: string[];
  /** Answers loads with this status. */
  refuses: number | null;
  /** Answers the next load with this status. */
  refuseNext: number | null;
  /** Loads and completions wait for it. */
  held: Promise<void> | null;
  /** What it answers to a probe; null: 200, and no token, as to every request. */
  answers: ProbeAnswer | null;
  /** How many completions it was asked for. */
  asked: number;
  /** How often its list was asked for. */
  listed: number;
  /** Its list does not come. */
  hangs: boolean;
  /** It was put to sleep: it lists and tells metrics, and fails at all else. */
  asleep: boolean;
  /** Answers to be put to sleep, or woken, with 500. */
  restless: "sleep" | "wake_up" | null;
  /** What comes of its memory when it wakes. */
  onWake: () => void;
  /** Every request fails, as on a socket that nobody listens on. */
  down: boolean;
  /** Another process under the same address: it has no adapters. */
  restart(): void;
  close(): Promise<void>;
}

interface Asked {
  lora_name: string;
  lora_path: string;
  model: string;
  prompt: number[];
  prompt_logprobs?: number;
}

export async function startListedEngine(name: string): Promise<ListedEngine> {
  const listed: ListedEngine = {
    ...{ name, url: "" },
    adapters: new Map(),
    calls: [],
    refuses: null,
    refuseNext: null,
    held: null,
    answers: testProbe.policy,
    ...{ asked: 0, listed: 0, hangs: false },
    asleep: false,
    restless: null,
    onWake: () => undefined,
    down: false,
    restart() {
      listed.adapters.clear();
      listed.asleep = false;
      listed.down = false;
    },
    engine: createHttpEngine({
      kind: "vllm",
      baseURL: () => listed.url,
      key: () => null,
    }),
    async close() {
      await listed.engine.close();
      server.closeAllConnections();
      server.close();
    },
  };

  function probed(prompt: readonly number[]): object {
    const rest = { index: 0, text: "", finish_reason: "length" };
    const { answers } = listed;
    const told = prompt.slice(1).map((id, at) => ({ [id]: { logprob: answers?.prompt[at] ?? 0 } }));
    const logprobs = { token_logprobs: answers ? [answers.next] : [] };
    return { ...rest, token_ids: answers ? [1] : [], logprobs, prompt_logprobs: [null, ...told] };
  }

  async function answer(path: string, text: string): Promise<[number, unknown]> {
    if (path === "/v1/models") {
      listed.listed++;
      if (listed.hangs) await new Promise(() => undefined);
      const adapters = [...listed.adapters].map(([id, root]) => ({ id, root, parent: "base" }));
      return [200, { data: [{ id: "base", parent: null, max_model_len: 512 }, ...adapters] }];
    }
    if (path === "/metrics") return [200, "vllm:kv_cache_usage_perc 0\n"];
    const rest = /^\/(sleep|wake_up)(\?|$)/.exec(path)?.[1];
    if (rest !== undefined) {
      listed.calls.push(rest);
      if (listed.restless === rest) return [500, "out of memory"];
      listed.asleep = rest === "sleep";
      if (!listed.asleep) listed.onWake();
      return [200, { status: listed.asleep ? "sleeping" : "awake" }];
    }
    if (listed.asleep) return [500, "asleep"];
    const body = JSON.parse(text) as Asked;
    const action = path === "/v1/load_lora_adapter" ? "load" : "unload";
    if (path !== "/v1/completions") listed.calls.push(`${action} ${body.lora_name}`);
    if (path === "/v1/completions") listed.asked++;
    await listed.held;
    if (path === "/v1/completions") {
      const ids = listed.answers ? [1] : [];
      const logprobs = { token_logprobs: ids.map(() => -0.5) };
      const sampled = { index: 0, text: name, token_ids: ids, logprobs, finish_reason: "stop" };
      const choice = body.prompt_logprobs === undefined ? sampled : probed(body.prompt);
      const isServed = body.model === "base" || listed.adapters.has(body.model);
      return isServed ? [200, { choices: [choice] }] : [404, "no such model"];
    }
    if (action === "unload") return [listed.adapters.delete(body.lora_name) ? 200 : 404, ""];
    const refusal = listed.refuses ?? listed.refuseNext;
    listed.refuseNext = null;
    if (refusal !== null) return [refusal, "refused"];
    if (listed.adapters.has(body.lora_name)) return [400, "loaded already"];
    listed.adapters.set(body.lora_name, body.lora_path);
    return [200, ""];
  }

  const server = createServer((request, response) => {
    if (listed.down) request.socket.destroy();
    let text = "";
    request.setEncoding("utf8").on("data", (part: string) => void (text += part));
    request.on("end", () => {
      void answer(request.url ?? "", text).then(([status, body]) => {
        response.writeHead(status).end(typeof body === "string" ? body : JSON.stringify(body));
      });
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  listed.url = `http://127.0.0.1:${port}`;
  return listed;
}
