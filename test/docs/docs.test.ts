import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

const run = promisify(execFile);

/** A program of the documents, as a user starts it: by the environment it finds the server. */
async function program(server: TestServer, cwd: string, code: string[]): Promise<string> {
  const { stdout, stderr } = await run(
    process.execPath,
    ["--conditions=@hone/source", "--import", import.meta.resolve("tsx"), ...code],
    {
      cwd,
      env: { ...process.env, HONE_URL: server.url, HONE_API_KEY: server.key },
      timeout: 240_000,
    },
  );
  return stdout + stderr;
}

const source = (name: string) =>
  fileURLToPath(new URL(`../../examples/readme/src/${name}`, import.meta.url));

describe("the code in the documents", () => {
  let server: TestServer;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "hone-docs-"));
    server = await startTestServer();
  });
  afterAll(async () => {
    await server?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("trains what the README trains", async () => {
    const said = await program(server, folder, [source("loop.ts")]);
    // Once all say yes, batches train nothing and are no steps; after many of them the run is over.
    const steps = [...said.matchAll(/^step (\d+): reward [\d.]+$/gm)].map(([, step]) =>
      Number(step),
    );
    const early = /The last 8 batches of .*: (\d+) of 12 are trained\./.exec(said);
    expect(Math.max(...steps)).toBe(Number(early?.[1] ?? 12));
    // Each step is told of once, and what trained nothing under the step that it left standing.
    expect(new Set(steps.filter((step) => step > 0)).size).toBe(Number(early?.[1] ?? 12));
    const [, before, after] = /says yes: ([\d.]+) before, ([\d.]+) after/.exec(said) ?? [];
    expect(Number(after)).toBeGreaterThan(Number(before) + 0.5);
  });

  it("runs every snippet of the client guide", async () => {
    const guide = JSON.stringify(
      new URL("../../examples/readme/src/client-guide.ts", import.meta.url),
    );
    const client = JSON.stringify(new URL("../../packages/client/src/index.ts", import.meta.url));
    const main = `const { run } = await import(${guide}); const { Hone } = await import(${client}); await run(new Hone());`;
    const said = await program(server, folder, ["--input-type=module", "--eval", main]);
    expect(said).toMatch(/guide@\d: loss|trained nothing/);
    expect(said).toContain("micro-batches");
    expect(await readdir(folder)).toContain("groups.jsonl");
  });

  it("runs every snippet of the guide to supervised learning", async () => {
    const guide = JSON.stringify(
      new URL("../../examples/readme/src/supervised-guide.ts", import.meta.url),
    );
    const client = JSON.stringify(new URL("../../packages/client/src/index.ts", import.meta.url));
    const main = `const { run } = await import(${guide}); const { Hone } = await import(${client}); await run(new Hone());`;
    const said = await program(server, folder, ["--input-type=module", "--eval", main]);
    const seen = [...said.matchAll(/^perplexity ([\d.]+)$/gm)].map(([, value]) => Number(value));
    expect(seen.length).toBeGreaterThan(2);
    expect(seen.at(-1)).toBeLessThan(seen[0] ?? 0);
    expect(said).toMatch(/^supervised@4 after 4 steps, 0 left out$/m);
    const [, before, after] = /\[ ([\d.e-]+), ([\d.e-]+) \]/.exec(said) ?? [];
    expect(Number(after)).toBeGreaterThan(Number(before));
  });

  it("runs every snippet of the guide to a loop of one's own", async () => {
    const guide = JSON.stringify(
      new URL("../../examples/readme/src/primitives-guide.ts", import.meta.url),
    );
    const client = JSON.stringify(new URL("../../packages/client/src/index.ts", import.meta.url));
    const main = `const { run } = await import(${guide}); const { Hone } = await import(${client}); await run(new Hone());`;
    const said = await program(server, folder, ["--input-type=module", "--eval", main]);
    expect(said).toMatch(/^own-loop@4 [\d.]+$/m);
    expect(said).toMatch(/^kept own-loop@5$/m);
  });
});
