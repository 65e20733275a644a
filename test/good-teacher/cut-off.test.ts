/** The pipeline of reward models as teachers, cut off in the middle of each of its stages, beside one that is not. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hone, type TrajectoryGroup } from "@hone/client";
import { goodTeacher, smallSetSettings, type GoodTeacherEvent } from "@hone/recipes";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

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

async function run(
  which: keyof typeof servers,
  signal: AbortSignal,
  onEvent: (event: GoodTeacherEvent) => void = () => {},
) {
  const connection = { baseURL: servers[which].url, apiKey: servers[which].key };
  const { rows } = await goodTeacher({
    ...{ hone: new Hone(connection), names: { rewardModel: connection }, signal, onEvent },
    ...{ out: join(folder, which), name: "teacher", scorer: join(folder, "truth.mjs") },
    ...{ preferences: join(folder, "preferences.jsonl"), shares: [0.5] },
    others: { "ground truth": { reward: "gold" } },
    settings: {
      ...smallSetSettings,
      ...{ testShare: 0.25, policyShare: 0.3, answerTokens: 4, pairs: undefined },
      // Few at a time, so that a batch is half played when it is cut off.
      concurrency: 3,
      sft: { epochs: 1, batchSize: 8, learningRate: 1e-3 },
      samples: { pairs: 4, measured: 4 },
      rewardModel: { epochs: 1, batchSize: 8, learningRate: 1e-3, centering: 0.01 },
      policy: {
        ...{ ...smallSetSettings.policy, steps: 2, groupsPerStep: 4, groupSize: 4 },
        ...{ objective: "grpo", testSamples: 2 },
        train: { warmupSteps: 0, maxTokensPerMicroBatch: 2048 },
      },
    },
  });
  return rows;
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

/** The run under way is in this part, and so many of its rollouts are done. */
function isAt(label: RegExp, done = 0) {
  let current = "";
  return (event: GoodTeacherEvent): boolean => {
    if (event.type !== "run") return false;
    if (event.event.type === "began") current = event.event.label;
    const so = event.event.type === "progressed" ? event.event.done : 0;
    return label.test(current) && so >= done;
  };
}

it("a pipeline that is cut off in the middle of each of its stages makes the same files (GRPO)", async () => {
  const whole = await run("whole", new AbortController().signal);
  expect(whole).toHaveLength(2);

  const left: [stage: string, when: (event: GoodTeacherEvent) => boolean][] = [
    ["labelled.jsonl", (event) => event.type === "scored" && event.done > 5],
    ["sft.json", (event) => event.type === "supervised" && event.event.type === "step"],
    ["outputs.jsonl", (event) => event.type === "scored" && event.done > 0],
    ["rm-50.json", (event) => event.type === "supervised" && event.event.type === "step"],
    ["evaluation-50.json", (event) => event.type === "scored" && event.done > 1],
    ["policy-50.json", isAt(/^step 1\/2 playing/, 5)],
    ["policy-50.json", isAt(/^step 2\/2 training/)],
    ["policy-ground-truth.json", isAt(/^step 2\/2 playing/, 6)],
  ];
  for (const [cut, when] of left) {
    const stop = new AbortController();
    let stage = "";
    const cutOff = run("cut", stop.signal, (event) => {
      if (event.type === "stage") stage = event.file;
      if (stage === cut && when(event)) stop.abort();
    });
    await expect(cutOff, cut).rejects.toThrow(/abort/i);
  }
  const rows = await run("cut", new AbortController().signal);
  for (const of of ["policy-50-run", "policy-ground-truth-run"]) {
    expect(await saidIn("cut", of)).toEqual(await saidIn("whole", of));
  }
  expect(await filesOf("cut")).toEqual(await filesOf("whole"));
  expect(rows).toEqual(whole);
}, 240_000);
