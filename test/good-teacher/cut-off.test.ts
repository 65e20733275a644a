/** The pipeline of reward models as teachers, killed in the middle of each of its stages, beside one that is not. */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TrajectoryGroup } from "@hone/client";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";
import { middles, runPipeline, type Pipeline } from "./cut-pipeline.ts";

// A model's name is part of its seeds, and no name is given twice on one server.
let servers: Record<"whole" | "cut", TestServer>;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-cut-off-"));
  const rows = Array.from({ length: 24 }, (_, at) => {
    const prompt = `Say a word. ${at}`;
    const [better = "", worse = ""] = at % 2 === 0 ? ["yes", "no"] : ["often", "never"];
    const said = (content: string) => [
      { role: "user", content: prompt },
      { role: "assistant", content },
    ];
    return JSON.stringify({ prompt, chosen: said(better), rejected: said(worse) });
  });
  writeFileSync(join(folder, "preferences.jsonl"), rows.join("\n"));
  writeFileSync(
    join(folder, "truth.mjs"),
    `const worth = { yes: 1, no: 0, never: 0.2, often: 0.6 };
export default (trajectories) => trajectories.map(({ messages }) => {
  const said = messages.at(-1).content;
  return worth[said] ?? 0.3 + (said.length % 5) / 20;
});
`,
  );
  const [whole, cut] = await Promise.all([startTestServer(), startTestServer()]);
  servers = { whole, cut };
}, 120_000);
afterAll(async () => {
  await Promise.all(Object.values(servers).map((server) => server.close()));
  rmSync(folder, { recursive: true, force: true });
});

const pipeline = (which: "whole" | "cut"): Pipeline => {
  const { url, key } = servers[which];
  return { url, key, folder, out: which };
};

/** A process of its own that runs the pipeline until it kills itself. Gives how it ended. */
async function killedIn(stage: number): Promise<{ signal: unknown; said: string }> {
  const program = fileURLToPath(new URL("cut-pipeline.ts", import.meta.url));
  const given = JSON.stringify({ ...pipeline("cut"), kill: stage });
  const args = ["--import", "tsx", "--conditions=@hone/source", program, given];
  return await new Promise((resolve) => {
    execFile(process.execPath, args, (error, _, said) => {
      resolve({ signal: error?.signal, said });
    });
  });
}

/** The files that the stages have made, wherever they are. */
async function filesOf(name: string): Promise<Record<string, string>> {
  const at = join(folder, name);
  const names = (await readdir(at)).filter(
    // These hold the digests of files in which the folder's path stands.
    (one) => /\.jsonl?$/.test(one) && !one.endsWith(".stage.json"),
  );
  const texts = await Promise.all(
    names.map(async (one) => [one, await readFile(join(at, one), "utf8")] as const),
  );
  return Object.fromEntries(texts.map(([one, text]) => [one, text.replaceAll(at, "")]));
}

/** What the policy said in each step and in the evaluations. */
async function saidIn(name: string, runFolder: string): Promise<Record<string, string[]>> {
  const at = join(folder, name, runFolder, "trajectories");
  const said: Record<string, string[]> = {};
  for (const one of await readdir(at)) {
    const groups = (await readFile(join(at, one), "utf8")).trim().split("\n");
    said[one] = groups.flatMap((line) =>
      (JSON.parse(line) as TrajectoryGroup).trajectories.map(({ messages }) =>
        JSON.stringify(messages),
      ),
    );
  }
  return said;
}

it("a pipeline that is killed in the middle of each of its stages makes the same files (GRPO)", async () => {
  const whole = await runPipeline(pipeline("whole"));
  expect(whole).toHaveLength(2);
  for (const [at, [stage]] of middles.entries()) {
    const { signal, said } = await killedIn(at);
    expect(signal, `${stage}: ${said}`).toBe("SIGKILL");
    expect(existsSync(join(folder, "cut", stage)), stage).toBe(false);
  }
  const rows = await runPipeline(pipeline("cut"));
  // What trained while the program was dead has no record in the run's own folder.
  const { "step-0002.jsonl": unseen, ...seen } = await saidIn("whole", "policy-50-run");
  expect(unseen).toHaveLength(16);
  expect(await saidIn("cut", "policy-50-run")).toEqual(seen);
  const other = "policy-ground-truth-run";
  expect(await saidIn("cut", other)).toEqual(await saidIn("whole", other));
  const [cut, made] = [await filesOf("cut"), await filesOf("whole")];
  expect(Object.keys(cut)).toEqual(Object.keys(made));
  // One by one, so that a failure names the file.
  for (const [name, text] of Object.entries(made)) expect(cut[name], name).toBe(text);
  expect(rows).toEqual(whole);
}, 400_000);
