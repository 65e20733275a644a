import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { workerPython } from "../engine/testing/running-engine.ts";
import { lockDataDir } from "../store/lock.ts";
import { runCli } from "./testing/run-cli.ts";

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
