import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { keepInHubCache, writeBase } from "../../testing/hub-cache.ts";
import { startJoinableServer, type JoinableServer } from "../../testing/joinable-server.ts";
import { baseFingerprint } from "../base-fingerprint.ts";
import type { SidecarOptions } from "./sidecar-options.ts";
import { startSidecar, type RunningSidecar } from "./sidecar.ts";

// A program in vLLM's place, as the child of the sidecar: each start notes its process and its flags.
const script = fileURLToPath(new URL("../../testing/streaming-child.mjs", import.meta.url));
const soon = { timeout: 30_000, interval: 20 };
let folder: string;
let servers: JoinableServer[];
let running: RunningSidecar[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-own-vllm-"));
  servers = [];
  running = [];
  writeBase(join(folder, "base"));
  const lines = [
    `echo $$ "$@" >> ${join(folder, "starts")}`,
    // As where the hub's files come with the first start.
    `[ -e ${join(folder, "fetched")} ] && cp -r ${join(folder, "fetched")}/. ${join(folder, "hub")}`,
    `[ -e ${join(folder, "broken")} ] && { echo "no memory for keys and values" >&2; exit 4; }`,
    `exec ${process.execPath} ${script} "$@"`,
  ];
  writeFileSync(join(folder, "python"), `#!/bin/sh\n${lines.join("\n")}\n`, { mode: 0o755 });
});
afterEach(async () => {
  await Promise.all(running.map((one) => one.stop(AbortSignal.abort())));
  await Promise.all(servers.map((one) => one.close()));
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

async function joinHere(
  options: Partial<SidecarOptions> & { device?: "cpu" | "cuda" },
  serverOptions: { base?: string; fingerprint?: string | null } = {},
): Promise<RunningSidecar> {
  const { device = "cpu", ...rest } = options;
  const dataDir = join(folder, "server");
  mkdirSync(dataDir);
  const server = await startJoinableServer({ dataDir, ...serverOptions });
  servers.push(server);
  const sidecar = await startSidecar({
    ...{ server: server.url, token: await server.token(), name: "a", dataDir: join(folder, "a") },
    engine: { python: join(folder, "python"), device, flags: [], backoffMs: 10 },
    ...{ listen: { host: "127.0.0.1", port: 0 }, cacheBytes: 1e9, drainMs: 0, ephemeral: false },
    ...{ log: silent, signal: new AbortController().signal, ...rest },
  });
  running.push(sidecar);
  await untilServing();
  return sidecar;
}

async function untilServing(): Promise<void> {
  await vi.waitFor(async () => {
    expect(await servers[0]!.engines()).toMatchObject([{ name: "a", state: "serving" }]);
  }, soon);
}

/** Of each start the process and the flags. */
function starts(): { pid: number; flags: string }[] {
  const text = existsSync(join(folder, "starts"))
    ? readFileSync(join(folder, "starts"), "utf8")
    : "";
  return text
    .split("\n")
    .filter(Boolean)
    .map((line) => ({ pid: Number.parseInt(line, 10), flags: line }));
}

it("a vLLM that cannot be started any more ends the sidecar, with its last words", async () => {
  const sidecar = await joinHere({ base: join(folder, "base") });
  writeFileSync(join(folder, "broken"), "");
  process.kill(starts()[0]!.pid, "SIGKILL");
  await expect(sidecar.failed).rejects.toMatchObject({
    code: "engine_unavailable",
    message: expect.stringMatching(/given up after 5 restarts.*no memory for keys and values/),
  });
  expect(starts()).toHaveLength(6);
});

it("on a card vLLM gets a share of what is free, and starts again only once that is free again", async () => {
  const says = (free: number): void => writeFileSync(join(folder, "memory"), `24576, ${free}\n`);
  says(20_000);
  const tool = `#!/bin/sh\ncat ${join(folder, "memory")}\n`;
  writeFileSync(join(folder, "nvidia-smi"), tool, { mode: 0o755 });
  vi.stubEnv("PATH", `${folder}:${process.env["PATH"]}`);
  const told: string[] = [];
  const tell = (line: string): void => void told.push(line);
  await joinHere({ base: join(folder, "base"), device: "cuda", tell });
  expect(starts()[0]!.flags).toContain("--gpu-memory-utilization 0.77");
  expect(told).toEqual([expect.stringContaining("vLLM gets 0.77 of its card")]);
  // What it held is not given back at once.
  says(1_000);
  process.kill(starts()[0]!.pid, "SIGKILL");
  await vi.waitFor(async () => {
    expect(await servers[0]!.engines()).toMatchObject([{ name: "a", state: "away" }]);
  }, soon);
  await delay(1_200);
  expect(starts()).toHaveLength(1);
  says(20_000);
  await untilServing();
  expect(starts()).toHaveLength(2);
  expect(starts()[1]!.flags).toContain("--gpu-memory-utilization 0.77");
});

it.each<[string, number, object]>([
  ["those of the server's base", 0, { state: "serving" }],
  ["others", 1, { code: "base_mismatch" }],
])(
  "the files that vLLM fetches of a hub id are looked at before it joins: %s",
  async (_, seed, end) => {
    const id = "Owner/base-1B";
    vi.stubEnv("HF_HUB_CACHE", join(folder, "hub"));
    mkdirSync(join(folder, "hub"));
    keepInHubCache(join(folder, "fetched"), id, seed);
    const fingerprint = await baseFingerprint(join(folder, "base"));
    const joined = joinHere({}, { base: id, fingerprint });
    const outcome = joined.then(() => ({ state: "serving" }));
    expect(await outcome.catch((error: unknown) => error)).toMatchObject(end);
    expect(starts()[0]!.flags).toContain(`--model ${id} `);
  },
);
