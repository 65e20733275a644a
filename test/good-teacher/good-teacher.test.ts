/** The pipeline of reward models as teachers, on a real server: all stages, again, and with parts that fail. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hone } from "@hone/client";
import {
  goodTeacher,
  smallSetSettings,
  teacherTable,
  type GoodTeacherEvent,
  type GoodTeacherOptions,
} from "@hone/recipes";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-good-teacher-"));
  server = await startTestServer();
  writeFileSync(
    file("preferences.jsonl"),
    preferences.map((row) => JSON.stringify(row)).join("\n"),
  );
  // It is down for as long as there is a file "down" beside it.
  writeFileSync(
    file("truth.mjs"),
    `import { existsSync } from "node:fs";
const worth = { yes: 1, no: 0, never: 0.2, often: 0.6 };
export default (trajectories) => trajectories.map(({ messages }) => {
  const said = messages.at(-1).content;
  return worth[said] ?? 0.3 + (said.length % 5) / 20;
});
export const weak = (...args) => {
  if (existsSync(new URL("down", import.meta.url))) throw new Error("it is down");
  return args[0].map(({ messages }) => messages.at(-1).content.length);
};
`,
  );
}, 120_000);
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const file = (name: string) => join(folder, name);
const preferences = Array.from({ length: 24 }, (_, at) => {
  const prompt = `Say a word. ${at}`;
  const [better, worse] = at % 2 === 0 ? ["yes", "no"] : ["often", "never"];
  const said = (content: string) => [
    { role: "user", content: prompt },
    { role: "assistant", content },
  ];
  return { prompt, chosen: said(better), rejected: said(worse) };
});

function optionsOf(changed: Partial<GoodTeacherOptions>): GoodTeacherOptions {
  const connection = { baseURL: server.url, apiKey: server.key };
  return {
    ...{ hone: new Hone(connection), names: { rewardModel: connection } },
    ...{ out: file("made"), name: "teacher", signal: new AbortController().signal },
    ...{ preferences: file("preferences.jsonl"), scorer: file("truth.mjs") },
    ...{ shares: [0.5], others: { "ground truth": { reward: "gold" } } },
    settings: {
      ...smallSetSettings,
      ...{ testShare: 0.25, policyShare: 0.3, answerTokens: 4, pairs: undefined },
      sft: { epochs: 1, batchSize: 8, learningRate: 1e-3 },
      samples: { pairs: 4, measured: 4 },
      rewardModel: { epochs: 1, batchSize: 8, learningRate: 1e-3, centering: 0.01 },
      policy: {
        ...{ ...smallSetSettings.policy, steps: 2, groupsPerStep: 4, groupSize: 4 },
        ...{ testSamples: 2, train: { warmupSteps: 0, maxTokensPerMicroBatch: 2048 } },
      },
    },
    ...changed,
  };
}

async function run(changed: Partial<GoodTeacherOptions> = {}) {
  const stages: [string, boolean][] = [];
  const onEvent = (event: GoodTeacherEvent) => {
    if (event.type === "stage-ended") stages.push([event.file, event.made]);
  };
  const { rows } = await goodTeacher(optionsOf({ onEvent, ...changed }));
  return { rows, stages };
}

it("goes from preferences to the table; a stage that is made again after an interruption makes the same file", async () => {
  // Stopped while the policy is sampled, with the first of its answers there.
  const stop = new AbortController();
  let stage = "";
  const stopped = run({
    signal: stop.signal,
    onEvent(event) {
      if (event.type === "stage") stage = event.file;
      if (stage === "outputs.jsonl" && event.type === "scored") stop.abort();
    },
  });
  await expect(stopped).rejects.toThrow(/abort/i);
  const { rows, stages } = await run();
  expect(rows.map(({ reward }) => reward)).toEqual(["reward model, 50%", "ground truth"]);
  expect(rows[0]!.onPolicyShare).toBeCloseTo(0.5, 1);
  expect(rows[1]!.accuracy).toMatchObject({ onPolicy: 1, offPolicy: 1 });
  for (const { variance, gain } of rows) {
    expect(variance).toBeGreaterThan(0);
    expect(Number.isFinite(gain)).toBe(true);
  }
  expect(teacherTable(rows)).toMatch(/Rank correlation/);
  const made = stages.filter(([, anew]) => anew).map(([name]) => name);
  expect(made).toEqual(expect.arrayContaining(["outputs.jsonl", "rm-50.json", "policy-50.json"]));
  expect(made).not.toContain("labelled.jsonl");

  const names = ["outputs.jsonl", "rm-50.json", "evaluation-50.json"];
  const contents = async () =>
    await Promise.all(names.map(async (name) => await readFile(file(`made/${name}`), "utf8")));
  const before = await contents();
  // As if the program had ended before it wrote them. What the server has done is not done again.
  for (const name of names) {
    await rm(file(`made/${name}`));
    await rm(file(`made/${name}.stage.json`));
  }
  const again = await run();
  expect(again.stages.filter(([, anew]) => anew).map(([name]) => name)).toEqual(names);
  expect(await contents()).toEqual(before);
  expect(again.rows).toEqual(rows);
}, 180_000);

it("a reward that goes down stops the policy's run, trains nothing, and goes on when it is back", async () => {
  const weak = {
    shares: [],
    others: { weak: { reward: `${file("truth.mjs")}#weak` } },
    settings: { ...optionsOf({}).settings, policy: { ...optionsOf({}).settings.policy, steps: 3 } },
  };
  const failed = run({
    ...weak,
    onEvent(event) {
      if (event.type === "run" && event.event.type === "step-ended")
        writeFileSync(file("down"), "");
    },
  });
  await expect(failed).rejects.toMatchObject({ code: "judge_failed" });
  await expect(failed).rejects.toThrow(/scored none of the step's 4 groups: it is down/);
  const { learnt } = await (await server.hone.model({ name: "teacher-policy-weak" })).info();
  // Two steps of imitation and one with the reward.
  expect(learnt).toBe(3);
  rmSync(file("down"));
  const { stages } = await run(weak);
  expect(stages.filter(([, anew]) => anew)).toEqual([["policy-weak.json", true]]);
  expect((await (await server.hone.model({ name: "teacher-policy-weak" })).info()).learnt).toBe(5);
}, 120_000);
