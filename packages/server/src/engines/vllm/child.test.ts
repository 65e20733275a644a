import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeEach, describe, expect, it, vi } from "vitest";
import { startChild, type Child, type ChildOptions } from "../../supervise/child.ts";
import type { Health } from "../../supervise/health.ts";
import { workerPython } from "../../testing/running-engine.ts";
import { vllmChild } from "./child.ts";
import { readVllmHealth } from "./health.ts";

// vLLM itself is tried in vllm.contract.test.ts, which takes minutes. Here a server of its module's name shows
// what is done with it: it tells what it was started with and asked, and starts a process as vLLM does.
const server = `
import http.server, json, os, socket, subprocess, sys, tempfile, time
name = sys.argv[sys.argv.index("--served-model-name") + 1]
port = int(sys.argv[sys.argv.index("--port") + 1])
open(os.path.join(tempfile.gettempdir(), "socket"), "w").close()
try:
    socket.socket().bind(("127.0.0.1", port))
    taken = False
except OSError:
    taken = True
compiled = os.path.join(os.environ["TORCHINDUCTOR_CACHE_DIR"], "kernel")
had = os.path.exists(compiled)
os.makedirs(os.path.dirname(compiled), exist_ok=True)
open(compiled, "w").write("half")
other = subprocess.Popen(["sleep", "600"])
asked = []
def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.path != "/seen":
            asked.append([self.path, self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]])
        if self.path == "/v1/completions": work(slow)
        seen = {"argv": sys.argv, "asked": asked, "other": other.pid, "env": dict(os.environ), "taken": taken, "had": had}
        models = {"data": [{"id": os.environ.get("TEST_NAME", name)}]}
        page = "\\n".join(metrics + [""]) if self.path == "/metrics" else None
        body = {"/seen": seen, "/v1/models": models}.get(self.path, {})
        self.send_response(200)
        self.end_headers()
        self.wfile.write((page or json.dumps(body)).encode())
    do_GET = do_POST = answer
    def log_message(self, *_): pass
print("{ not a ready line", flush=True)
slow = float(os.environ.get("TEST_SLOW", 0))
metrics = os.environ.get("TEST_METRICS", "").split(";")
work(slow)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
`;
const folder = mkdtempSync(join(tmpdir(), "hone-vllm-child-"));
const module = join(folder, "vllm/entrypoints/openai");
mkdirSync(module, { recursive: true });
writeFileSync(join(module, "api_server.py"), server);
let temporary: string;
/** What starts have compiled. */
let kept: string;
beforeEach(() => {
  temporary = mkdtempSync(join(folder, "tmp-"));
  kept = join(mkdtempSync(join(folder, "kept-")), "compiled");
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

interface Seen {
  argv: string[];
  asked: [path: string, withKey: boolean][];
  other: number;
  env: Record<string, string>;
  /** Whether its port was already held for it. */
  taken: boolean;
  /** Whether an earlier start had compiled what it needs. */
  had: boolean;
}

function start(
  env: Record<string, string> = {},
  options: Partial<ChildOptions> = {},
): Promise<Child> {
  return startChild({
    ...vllmChild({
      ...{ python: workerPython() ?? "", base: "/models/base", servedName: "base" },
      ...{ maxModelLen: 512, maxLoras: 6 },
      env: { PYTHONPATH: folder, TMPDIR: temporary, HONE_COMPILED: kept, ...env },
    }),
    log: pino({ level: "silent" }),
    ...options,
  });
}

async function seenBy(child: Child): Promise<Seen> {
  return (await (await fetch(`${child.baseURL}/seen`)).json()) as Seen;
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const inOneProcess =
  "--distributed-executor-backend vllm.v1.executor.uniproc_executor.UniProcExecutor";

it("computes and schedules in one process, but where threads are bound, over several, or on a card", () => {
  const flagsOf = (options: Partial<Parameters<typeof vllmChild>[0]>): string => {
    const { args } = vllmChild({ python: "python", base: "/b", servedName: "b", ...options });
    return (typeof args === "function" ? args() : args).join(" ");
  };
  expect(flagsOf({})).toContain(inOneProcess);
  expect(flagsOf({ device: "cuda" })).not.toContain("--distributed-executor-backend");
  expect(flagsOf({ flags: ["-tp", "2"] })).not.toContain("--distributed-executor-backend");
  // The operator's own comes last.
  const own = flagsOf({ flags: ["--distributed-executor-backend", "mp"] });
  expect(own.lastIndexOf("mp")).toBeGreaterThan(own.indexOf(inOneProcess));
  vi.stubEnv("VLLM_CPU_OMP_THREADS_BIND", "0-3");
  expect(flagsOf({})).not.toContain("--distributed-executor-backend");
  vi.unstubAllEnvs();
});

describe.skipIf(!workerPython())("vLLM as a child", () => {
  it("is ready once it has sampled, under a key that is not on its command line", async () => {
    const child = await start();
    try {
      const { argv, asked, env } = await seenBy(child);
      expect(asked.slice(-4)).toEqual([
        ["/health", false],
        ["/v1/models", true],
        // What it compiles at first use, it compiles now.
        ["/v1/completions", true],
        ["/v1/completions", true],
      ]);
      expect(argv.join(" ")).toContain("--model /models/base --served-model-name base");
      expect(argv.join(" ")).toContain("--max-model-len 512 --enable-lora --max-loras 6");
      expect(argv.join(" ")).toContain("--logprobs-mode processed_logprobs");
      expect(argv.join(" ")).toContain(inOneProcess);
      expect(argv).not.toContain(child.key);
      expect(env).toMatchObject({ VLLM_API_KEY: child.key, VLLM_ALLOW_RUNTIME_LORA_UPDATING: "1" });
      expect(env).not.toHaveProperty("HONE_WORKER_KEY");
    } finally {
      await child.stop();
    }
  });

  it.each<[string, (child: Child) => unknown]>([
    ["stopped", (child) => child.stop()],
    ["killed", (child) => child.kill()],
    ["gone, and what it started is not", (child) => process.kill(child.pid, "SIGKILL")],
  ])("leaves nothing when it is %s", async (_, end) => {
    const child = await start();
    const { other } = await seenBy(child);
    expect(isRunning(other)).toBe(true);
    expect(readdirSync(temporary)).toEqual([expect.stringMatching(/^hone-vllm-\w+$/)]);
    expect(readdirSync(temporary, { recursive: true })).toContainEqual(
      expect.stringMatching(/^hone-vllm-\w+\/socket$/),
    );
    await end(child);
    await child.exited;
    await expect.poll(() => isRunning(other)).toBe(false);
    await expect.poll(() => readdirSync(temporary)).toEqual([]);
  });

  /** Whether a start found what it needs compiled. It is ended once that is kept. */
  async function startAndKeep(): Promise<boolean> {
    const child = await start();
    try {
      await expect
        .poll(() => existsSync(kept) && readdirSync(kept, { recursive: true }))
        .toContainEqual(expect.stringMatching(/^[0-9a-f]{16}\/kernel$/));
      return (await seenBy(child)).had;
    } finally {
      await child.kill();
    }
  }

  it("keeps what it has compiled for the next start, and nothing of one that was not ready", async () => {
    await expect(start({ TEST_NAME: "other" })).rejects.toThrow("on vLLM's port");
    expect(existsSync(kept)).toBe(false);
    expect(await startAndKeep()).toBe(false);
    expect(statSync(kept).mode & 0o777).toBe(0o700);
    expect(await startAndKeep()).toBe(true);
    // What others may have put there is not run.
    chmodSync(kept, 0o777);
    expect(await startAndKeep()).toBe(false);
  });

  it("has its port to itself from before it listens", async () => {
    const child = await start();
    try {
      expect((await seenBy(child)).taken).toBe(process.platform === "linux");
    } finally {
      await child.stop();
    }
  });

  it("tells what a slow start is at, by the processor time that it takes", async () => {
    const told: Health[] = [];
    const onStarting = (health: Health) => void told.push(health);
    const child = await start({ TEST_SLOW: "2.5" }, { onStarting });
    await child.stop();
    for (const phase of ["loading", "compiling"]) {
      const steps = told.filter((one) => one.phase === phase).map((one) => one.progress);
      expect(steps.length).toBeGreaterThan(1);
      expect(steps).toEqual(steps.toSorted((x, y) => x - y));
    }
    expect(new Set(told.map((one) => JSON.stringify(one))).size).toBe(told.length);
    expect(told.at(-1)).toMatchObject({ phase: "compiling" });
  });

  it.each([
    [["# HELP", "vllm:num_requests_running 0.0"], { phase: "idle", progress: 0 }],
    [
      [0, 1].flatMap((engine) => [
        `vllm:num_requests_running{engine="${engine}",model_name="a b"} ${engine}.0`,
        `vllm:iteration_tokens_total_count{engine="${engine}",model_name="a b"} 1${engine}.0`,
      ]),
      { phase: "decoding", progress: 21 },
    ],
  ])("tells by its metrics how far it is: %j", async (lines, health) => {
    const child = await start({ TEST_METRICS: lines.join(";") });
    try {
      expect(await readVllmHealth(child)).toEqual(health);
    } finally {
      await child.stop();
    }
  });

  it("is refused where another server answers on its port", async () => {
    await expect(start({ TEST_NAME: "other" })).rejects.toMatchObject({
      code: "engine_unavailable",
      message: expect.stringContaining("Another server answers on vLLM's port."),
    });
  });
});
