// The engines that `pnpm bench engine` compares: one process each, the same token ids in, as many out.
import process from "node:process";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { vllmChild } from "../packages/server/src/engines/vllm/child.ts";
import { startChild, type Child } from "../packages/server/src/supervise/child.ts";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export interface BenchBase {
  name: string;
  folder: string;
  dtype: "float32" | "bfloat16";
  adapter: string;
}

export interface Setting {
  python: string;
  threads: number;
}

/** Rollouts that grow turn by turn: what each turn adds is given, what is sampled comes from the engine. */
export interface Workload {
  /** Per rollout, per turn: the ids that are new in it. Those of turn 0 are shared by a group. */
  added: number[][][];
  tokensPerTurn: number;
}

export interface Contender {
  name: string;
  child: Child;
  /** Plays the workload; every turn of every rollout has `tokensPerTurn` sampled tokens. */
  play(workload: Workload): Promise<void>;
}

const adapterName = "policy@1";
const log = pino({ level: process.env["HONE_BENCH_LOG"] ?? "silent" });

/** The same number of threads for all; idle ones sleep, because all of them share the cores. */
function environment({ threads }: Setting): Record<string, string> {
  return {
    OMP_NUM_THREADS: String(threads),
    MKL_NUM_THREADS: String(threads),
    OMP_WAIT_POLICY: "passive",
    TOKENIZERS_PARALLELISM: "false",
    HF_HUB_OFFLINE: "1",
    PYTHONPATH: at("../packages/server/worker"),
    VLLM_CPU_KVCACHE_SPACE: "1",
    VLLM_CPU_OMP_THREADS_BIND: "nobind",
  };
}

const common = {
  log,
  unavailable: "engine_unavailable",
  readyTimeoutMs: 300_000,
  stopTimeoutMs: 15_000,
} as const;

export async function startHone(base: BenchBase, setting: Setting): Promise<Contender> {
  const child = await startChild({
    ...common,
    name: "hone",
    command: setting.python,
    args: [
      ...["-m", "hone_worker.worker", "--base", base.folder, "--dtype", base.dtype],
      ...["--served-name", "base", "--threads-decode", String(setting.threads)],
    ],
    env: environment(setting),
  });
  return completions("hone", child, base);
}

export async function startVllm(base: BenchBase, setting: Setting): Promise<Contender> {
  const python = process.env["HONE_VLLM_PYTHON"];
  if (!python) {
    throw new Error(
      "vLLM is not installed: node scripts/vllm/setup.mjs, or leave it out of --engines",
    );
  }
  const child = await startChild({
    ...vllmChild({
      ...{ python, base: base.folder, dtype: base.dtype, servedName: "base", maxModelLen: 2048 },
      env: environment(setting),
    }),
    ...common,
  });
  return completions("vllm-cpu", child, base);
}

/** Both engines answer the same requests, each rollout on its own: its next turn follows when it can. */
async function completions(name: string, child: Child, base: BenchBase): Promise<Contender> {
  await post(child, "/v1/load_lora_adapter", { lora_name: adapterName, lora_path: base.adapter });
  const turn = async (prompt: number[], tokens: number): Promise<number[]> => {
    const answer = JSON.parse(
      await post(child, "/v1/completions", {
        model: adapterName,
        prompt,
        max_tokens: tokens,
        temperature: 1,
        ignore_eos: true,
        logprobs: 0,
        return_token_ids: true,
      }),
    );
    return checked(answer.choices[0].token_ids, tokens, name);
  };
  return {
    name,
    child,
    async play({ added, tokensPerTurn }) {
      await Promise.all(
        added.map(async (turns) => {
          let history: number[] = [];
          for (const ids of turns) {
            const prompt = [...history, ...ids];
            history = [...prompt, ...(await turn(prompt, tokensPerTurn))];
          }
        }),
      );
    },
  };
}

/** One process, two contenders. A turn of all rollouts is one call: that is how these functions are used. */
export async function startTransformers(base: BenchBase, setting: Setting): Promise<Contender[]> {
  const child = await startChild({
    ...common,
    name: "transformers",
    command: setting.python,
    args: [
      at("./transformers_side.py"),
      ...["--base", base.folder, "--adapter", base.adapter, "--dtype", base.dtype],
      ...["--threads", String(setting.threads)],
    ],
    env: environment(setting),
  });
  return ["generate", "generate_batch"].map((method) => ({
    name: method,
    child,
    async play({ added, tokensPerTurn }) {
      let histories: number[][] = added.map(() => []);
      for (let turn = 0; turn < (added[0]?.length ?? 0); turn++) {
        const prompts = histories.map((ids, row) => [...ids, ...(added[row]?.[turn] ?? [])]);
        const body = { method, prompts, max_tokens: tokensPerTurn };
        const { ids } = JSON.parse(await post(child, "/", body));
        histories = prompts.map((prompt, row) => [
          ...prompt,
          ...checked(ids[row], tokensPerTurn, method),
        ]);
      }
    },
  }));
}

function checked(ids: unknown, tokens: number, name: string): number[] {
  if (!Array.isArray(ids) || ids.length !== tokens) {
    throw new Error(
      `${name} sampled ${Array.isArray(ids) ? ids.length : "no"} of ${tokens} tokens`,
    );
  }
  return ids;
}

export async function post(child: Child, path: string, body: unknown): Promise<string> {
  const response = await fetch(`${child.baseURL}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${child.key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text.slice(0, 300)}`);
  return text;
}
