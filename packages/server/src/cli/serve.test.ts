import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { workerPython } from "../testing/running-engine.ts";
import { ownAddresses } from "../http/own-address.ts";
import { startServer } from "../server.ts";
import { lockDataDir } from "../store/lock.ts";
import { runCli } from "../testing/run-cli.ts";

const base = fileURLToPath(new URL("../../../../models/hone-2048-1m", import.meta.url));
const parent = mkdtempSync(join(tmpdir(), "hone-serve-"));
afterAll(() => rmSync(parent, { recursive: true, force: true, maxRetries: 5 }));

async function refusal(args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const { code, out, error } = await runCli(["serve", "--port", "0", ...args], env);
  expect({ code, out }).toEqual({ code: 1, out: "" });
  const lines = error.trim().split("\n");
  expect(lines).toHaveLength(1);
  return lines[0]!;
}

describe.skipIf(!workerPython())("serve says in one line", () => {
  test("that another server has the data directory, before it starts anything", async () => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    const lock = lockDataDir(dataDir);
    const line = await refusal(["--base", base, "--data-dir", dataDir]);
    lock.release();
    expect(line).toBe(
      `hone: Another Hone server (pid ${process.pid}) uses the data directory ${dataDir}. Stop it, or start this one with another data directory.`,
    );
  });

  test.each([
    ["--port", "99999", /argument '99999' is invalid. It must be a whole number from 0 to 65535/],
    ["--engine-url", "vllm", /argument 'vllm' is invalid. It must be a URL/],
    ["--engine-url", "ftp://h", /It must be a URL/],
    ["--engine-url", "http://me:secret@h", /A name or a password in it is not sent/],
    ["--log-level", "loud", /Allowed choices are trace/],
    ["--engine-share", "1", /argument '1' is invalid/],
    ["--recompute", "often", /Allowed choices are auto, on, off/],
    ["--device", "tpu", /Allowed choices are cpu, cuda/],
    ["--engine", "sglang", /Allowed choices are embedded, vllm/],
    ["--engine-process", "two", /Allowed choices are trainer, own/],
    ["--replicas", "0", /argument '0' is invalid/],
  ])("that %s %s is nothing it can take", async (flag, value, message) => {
    const { code, error } = await runCli(["serve", "--base", base, flag, value]);
    expect(code).toBe(1);
    expect(error).toMatch(message);
    expect(error).not.toContain("    at ");
  });

  test.each([
    [["--replicas", "2"], /--replicas is of --engine vllm/],
    [["--", "--max-num-seqs", "8"], /--max-num-seqs 8 would go to vLLM\. Add --engine vllm/],
    [
      ["--kv-cache-mib", "100", "--engine-share", "0.3"],
      /kvCacheMib and engineShare both say how much/,
    ],
    [["--engine", "vllm", "--kv-cache-mib", "100"], /kvCacheMib is of the embedded engine/],
    [
      ["--engine", "joined", "--engine-process", "own"],
      /--engine-process is of the embedded engine/,
    ],
    [["--device", "cuda", "--engine-process", "own"], /--engine-process own is for --device cpu/],
    [
      ["--engine", "vllm", "--paths", "layer=eager, decode=graph"],
      /--paths decode=… is of the emb/,
    ],
    [["--engine-url", "http://127.0.0.1:1", "--paths", "decode=eager"], /--paths decode=… is of/],
    [["--sleep"], /--sleep is of --engine vllm: the embedded engine uses/],
    [["--engine", "vllm", "--sleep"], /--sleep is for --device cuda/],
    [["--engine", "joined", "--sleep"], /engines that join have cards of their own/],
    [["--engine-url", "http://127.0.0.1:1", "--sleep"], /a vLLM that this server runs/],
    [
      ["--engine", "vllm", "--device", "cuda", "--replicas", "2", "--sleep"],
      /--replicas have cards of their own/,
    ],
    [["--engine", "vllm", "--", "--port=8000"], /vLLM's --port is set by Hone/],
    [
      ["--engine", "vllm", "--", "--logprobs_mode", "raw_logprobs"],
      /vLLM's --logprobs-mode is set/,
    ],
    [
      ["--engine", "vllm", "--engine-url", "http://127.0.0.1:9"],
      /An engine by its URL and --engine exclude each other/,
    ],
    [
      ["--engine-url", "http://127.0.0.1:9", "--engine-url", "http://127.0.0.1:9/v1/"],
      /Two engines have the same URL/,
    ],
  ])("that %j do not go together", async (args, message) => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    expect(await refusal(["--base", base, "--data-dir", dataDir, ...args])).toMatch(message);
  });

  test.runIf(existsSync("/proc/self"))("that the data directory cannot be made", async () => {
    expect(await refusal(["--base", base, "--data-dir", "/proc/hone/data"])).toMatch(
      /^hone: The data directory \/proc\/hone\/data cannot be made \(.*\)\. Name another one\.$/,
    );
  });

  test("how vLLM is installed, where it is not", async () => {
    const cache = mkdtempSync(join(parent, "cache-"));
    const dataDir = mkdtempSync(join(parent, "data-"));
    const args = ["--base", base, "--data-dir", dataDir, "--engine", "vllm"];
    const env = { HONE_CACHE: cache, HONE_VLLM_PYTHON: "" };
    expect(await refusal(args, env)).toMatch(
      /vLLM is not installed\. Run `npx @hone\/server setup/,
    );
    const named = { HONE_VLLM_PYTHON: join(cache, "python") };
    expect(await refusal(args, named)).toMatch(/HONE_VLLM_PYTHON is .*, which does not exist/);
  });

  test("that nobody is behind --engine-url, and what it needs to find there", async () => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    const args = ["--base", base, "--data-dir", dataDir, "--engine-url"];
    expect(await refusal([...args, "http://127.0.0.1:9/v1"])).toMatch(
      /^hone: No engine answers at http:\/\/127.0.0.1:9 \(ECONNREFUSED\)\. Start vLLM there first/,
    );
    const page = createHttpServer((_, response) => response.end("<html>")).listen(0, "127.0.0.1");
    await new Promise((resolve) => page.once("listening", resolve));
    const { port } = page.address() as AddressInfo;
    expect(await refusal([...args, `http://127.0.0.1:${port}`])).toMatch(
      /^hone: What answers at http:\/\/127.0.0.1:\d+ is not a vLLM server that Hone can use: /,
    );
    page.close();
  });

  test("that the port is taken", async () => {
    const stranger = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => stranger.once("listening", resolve));
    const { port } = stranger.address() as AddressInfo;
    const dataDir = mkdtempSync(join(parent, "data-"));
    const line = await refusal(["--base", base, "--data-dir", dataDir, "--port", String(port)]);
    stranger.close();
    expect(line).toMatch(new RegExp(`^hone: Port ${port} on 127.0.0.1 is taken\\.`));
  });

  test.each([
    ["no name", ["./model"], /names no reward model\. Write name=folder or name=hub id/],
    ["a name that is none", ["A b=./model"], /names no reward model/],
    ["no folder", ["tone=./no/such/folder"], /There is no folder \/.*no\/such\/folder\./],
    ["a name twice", ["tone=./a", "tone=./b"], /Two reward models are called "tone"/],
  ])("that a reward model is wrong: %s", async (_what, models, message) => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    const flags = models.flatMap((model) => ["--reward-model", model]);
    expect(await refusal(["--base", base, "--data-dir", dataDir, ...flags])).toMatch(message);
  });

  test.each([
    [
      "a folder",
      ["--base", "./no/such/folder"],
      /^hone: There is no folder \/.*no\/such\/folder\./,
    ],
    [
      "a hub id",
      ["--base", "nobody/nothing"],
      /^hone: .*'nobody\/nothing' is not in this machine's hub cache/,
    ],
  ])("that the base is missing: %s", async (_what, args, message) => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    const env = { HF_HUB_OFFLINE: "1", HF_HOME: parent };
    expect(await refusal([...args, "--data-dir", dataDir], env)).toMatch(message);
  });
});

test.skipIf(!workerPython())("serve says which ways to compute there are", async () => {
  const dataDir = mkdtempSync(join(parent, "data-"));
  const args = ["serve", "--base", base, "--port", "0", "--data-dir", dataDir];
  const { code, error } = await runCli([...args, "--paths", "layer=fast"]);
  expect(code).toBe(1);
  // The worker says so, after a start whose length it may tell of.
  expect(error.trim().split("\n").at(-1)).toMatch(
    /^hone: .*The compute paths are wrong: layer is 'fast', which is not one of auto, eager/,
  );
});

test("the help of serve shows no value of the program's own", async () => {
  const { out } = await runCli(["serve", "--help"]);
  expect(out).toContain("--reward-model");
  expect(out).not.toMatch(/default: (\{\}|\[\])/);
});

describe.skipIf(!workerPython())("serve on every address of the machine", () => {
  test("prints a URL that others can use, and answers there", async () => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    const server = await startServer({ base, dataDir, host: "0.0.0.0" });
    try {
      const [own] = ownAddresses();
      const port = new URL(server.url).port;
      expect(server.url).toBe(`http://127.0.0.1:${port}`);
      expect(server.publicURL).toBe(own ? `http://${own}:${port}` : server.url);
      for (const url of [server.url, server.publicURL]) {
        const headers = { authorization: `Bearer ${server.key}` };
        expect((await fetch(`${url}/health`, { headers })).status).toBe(200);
      }
    } finally {
      await server.close();
    }
  });
});
