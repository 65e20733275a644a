import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hone-vllm-setup-"));
const cache = join(folder, "cache");
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

/** The setup of vLLM, where no package can be had and `python3.11` does not run. */
function setUp(): Promise<{ code: number | null; text: string }> {
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
      PIP_CONFIG_FILE: "/dev/null",
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (part: string) => (text += part));
  }
  return new Promise((resolve) => void child.once("close", (code) => resolve({ code, text })));
}

it("sets vLLM up in Hone's cache, one at a time, with whichever Python there is", async () => {
  const both = await Promise.all([setUp(), setUp()]);
  const [name = ""] = readdirSync(join(cache, "envs")).filter((entry) => !entry.endsWith(".lock"));
  const environment = join(cache, "envs", name);
  for (const { code, text } of both) {
    expect(text).toMatch(/Python 3\.1[1-3]\.\d+: making the vLLM environment in /);
    expect(text).toContain(environment);
    expect(text).toMatch(/Setting up the vLLM environment failed: [^]*torch/);
    expect(code).toBe(1);
  }
  const waited = both.filter(({ text }) => text.includes("Another setup is making"));
  expect(waited).toHaveLength(1);

  // What is half made does not count; what is whole is taken as it is.
  writeFileSync(join(environment, "hone-complete.json"), "{}");
  const whole = await setUp();
  expect(whole).toEqual({
    code: 0,
    text: `vLLM is installed: ${join(environment, "bin", "python")}\n`,
  });
});
