import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { startChild, type Child } from "../../supervise/child.ts";
import { workerPython } from "../../testing/running-engine.ts";
import { vllmChild } from "./child.ts";

// vLLM itself is tried in vllm.contract.test.ts, which takes minutes. Here a server of its module's name shows
// what is done with it: it tells what it was started with and asked, and starts a process as vLLM does.
const server = `
import http.server, json, os, subprocess, sys, tempfile
name = sys.argv[sys.argv.index("--served-model-name") + 1]
port = int(sys.argv[sys.argv.index("--port") + 1])
open(os.path.join(tempfile.gettempdir(), "socket"), "w").close()
other = subprocess.Popen(["sleep", "600"])
asked = []
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.path != "/seen":
            asked.append([self.path, self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]])
        seen = {"argv": sys.argv, "asked": asked, "other": other.pid, "env": dict(os.environ)}
        models = {"data": [{"id": os.environ.get("TEST_NAME", name)}]}
        body = {"/seen": seen, "/v1/models": models}.get(self.path, {})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    do_GET = do_POST = answer
    def log_message(self, *_): pass
print("{ not a ready line", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
`;
const folder = mkdtempSync(join(tmpdir(), "hone-vllm-child-"));
const module = join(folder, "vllm/entrypoints/openai");
mkdirSync(module, { recursive: true });
writeFileSync(join(module, "api_server.py"), server);
let temporary: string;
beforeEach(() => void (temporary = mkdtempSync(join(folder, "tmp-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

interface Seen {
  argv: string[];
  asked: [path: string, withKey: boolean][];
  other: number;
  env: Record<string, string>;
}

function start(env: Record<string, string> = {}): Promise<Child> {
  return startChild({
    ...vllmChild({
      ...{ python: workerPython() ?? "", base: "/models/base", servedName: "base" },
      ...{ maxModelLen: 512, maxLoras: 6 },
      env: { PYTHONPATH: folder, TMPDIR: temporary, ...env },
    }),
    log: pino({ level: "silent" }),
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

describe.skipIf(!workerPython())("vLLM as a child", () => {
  it("is ready once it has sampled, under a key that is not on its command line", async () => {
    const child = await start();
    try {
      const { argv, asked, env } = await seenBy(child);
      expect(asked.slice(-3)).toEqual([
        ["/health", false],
        ["/v1/models", true],
        ["/v1/completions", true],
      ]);
      expect(argv.join(" ")).toContain("--model /models/base --served-model-name base");
      expect(argv.join(" ")).toContain("--max-model-len 512 --enable-lora --max-loras 6");
      expect(argv.join(" ")).toContain("--logprobs-mode processed_logprobs");
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
    expect(readdirSync(temporary, { recursive: true }).map(String)).toEqual([
      expect.stringMatching(/^hone-vllm-\w+$/),
      expect.stringMatching(/^hone-vllm-\w+\/socket$/),
    ]);
    await end(child);
    await child.exited;
    await expect.poll(() => isRunning(other)).toBe(false);
    await expect.poll(() => readdirSync(temporary)).toEqual([]);
  });

  it("is refused where another server answers on its port", async () => {
    await expect(start({ TEST_NAME: "other" })).rejects.toMatchObject({
      code: "engine_unavailable",
      message: expect.stringContaining("Another server answers on vLLM's port."),
    });
  });
});
