// How often a small model on our own server gives scores that hold, by how it is held to their shape:
//   pnpm experiment own-judge [--base FOLDER] [--groups 24] [--formats …]
// The base is SmolLM2-135M-Instruct, as `setup --model smollm2` brings it, unless --base names another.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import type { ChatMessage, TrajectoryGroup } from "@hone/core";
import { Hone } from "@hone/client";
import { JudgeError, rulerScoreGroup, type StructuredOutput } from "@hone/ruler";
import { startServer } from "@hone/server";
import { findEnvironment } from "../packages/server/src/setup/environment.ts";
import { setUpModel } from "../packages/server/src/setup/models.ts";

const { values } = parseArgs({
  options: {
    base: { type: "string" },
    groups: { type: "string", default: "24" },
    formats: { type: "string", default: "none,json_object,unbound,json_schema" },
    "max-tokens": { type: "string", default: "400" },
    dtype: { type: "string", default: "bfloat16" },
  },
});

/** What any reader can rank: a right answer, a right one among other words, a wrong one, none. */
const facts: readonly [question: string, right: string, wrong: string][] = [
  ["What is the capital of France?", "Paris", "Lyon"],
  ["How many legs does a spider have?", "eight", "six"],
  ["Which planet is closest to the sun?", "Mercury", "Neptune"],
  ["What is 7 times 8?", "56", "54"],
  ["Who wrote Hamlet?", "William Shakespeare", "Charles Dickens"],
  ["At what temperature does water boil at sea level, in Celsius?", "100 degrees", "80 degrees"],
  ["How many days has a leap year?", "366", "364"],
  ["Which gas do plants take in?", "carbon dioxide", "helium"],
  ["What is the largest ocean?", "the Pacific", "the Baltic Sea"],
  ["In which year did the Second World War end?", "1945", "1918"],
  ["What is the square root of 81?", "9", "8"],
  ["What do bees make?", "honey", "silk"],
];
const openings = ["", "Please answer: ", "A pupil asks: "];
const rubric =
  "A right answer scores above a wrong one and above none. Of right ones the shorter is better.";

function groupOf(number: number): TrajectoryGroup {
  const [question, right, wrong] = facts[number % facts.length]!;
  const asked = openings[Math.floor(number / facts.length) % openings.length]! + question;
  const answers = [
    `It is ${right}.`,
    `Well, there is much to say, and people differ. All in all it is ${right}. Anything else?`,
    `It is ${wrong}.`,
    "I would rather not answer that.",
  ];
  return {
    id: `g${number}`,
    scenario: { question: asked },
    exceptions: [],
    metadata: {},
    metrics: {},
    logs: [],
    trajectories: answers.map((content) => ({
      rolloutId: null,
      model: null,
      policy: null,
      messages: [
        { role: "user", content: asked },
        { role: "assistant", content },
      ] satisfies ChatMessage[],
      tools: null,
      histories: [],
      reward: null,
      metrics: {},
      metadata: {},
      logs: [],
      usage: { completions: 1, promptTokens: 0, completionTokens: 0 },
      startedAt: 0,
      durationMs: 0,
    })),
  };
}

/** "unbound": by the schema that other providers get, which leaves the ids to the judge. */
async function judgeAll(groups: readonly TrajectoryGroup[], format: StructuredOutput | "unbound") {
  const unbound = format === "unbound";
  const judge = unbound
    ? { baseURL: `${server.url}/v1`, apiKey: server.key, model: "judge@0" }
    : "hone/judge@0";
  const started = performance.now();
  const scored = await Promise.all(
    groups.map((group) =>
      rulerScoreGroup(group, judge, {
        structuredOutput: unbound ? "json_schema" : format,
        cache: false,
        parameters: { max_tokens: Number(values["max-tokens"]), seed: 1 },
        rubric,
        timeoutMs: 1_800_000,
        deadlineMs: 7_200_000,
      }),
    ),
  );
  const judged = scored.map(({ judgement }) => judgement);
  const valid = judged.filter(({ status }) => status === "judged");
  const share = (part: number) => `${Math.round((100 * part) / groups.length)}%`;
  const failures = new Map<string, number>();
  for (const { error } of judged) {
    if (!JudgeError.isInstance(error)) continue;
    failures.set(error.failure, (failures.get(error.failure) ?? 0) + 1);
  }
  const tokens = judged.reduce((sum, { completionTokens }) => sum + completionTokens, 0);
  return {
    response_format: format,
    "valid at once": share(valid.filter(({ repairs }) => repairs === 0).length),
    "after the repair": share(valid.filter(({ repairs }) => repairs > 0).length),
    dropped: share(groups.length - valid.length),
    because: [...failures].map(([failure, count]) => `${count} ${failure}`).join(", "),
    "tokens a group": Math.round(tokens / groups.length),
    ...agreement(scored),
    seconds: Math.round((performance.now() - started) / 1000),
  };
}

/** Of the pairs of a right and a wrong or missing answer, those in which the right one scores higher. */
function agreement(scored: readonly TrajectoryGroup[]) {
  const pairs = scored.flatMap(({ trajectories }) => {
    const [brief, long, wrong, none] = trajectories.map(({ reward }) => reward ?? null);
    return [brief, long].flatMap((right) => [wrong, none].map((other) => [right, other] as const));
  });
  let [compared, above, equal] = [0, 0, 0];
  for (const [right, other] of pairs) {
    if (right == null || other == null) continue;
    compared++;
    if (right > other) above++;
    if (right === other) equal++;
  }
  const share = (part: number) => (compared ? `${Math.round((100 * part) / compared)}%` : "");
  return { "right above wrong": share(above), equal: share(equal) };
}

const say = (text: string) => console.error(text);
const base = values.base ?? (await setUpModel("smollm2", await findEnvironment(), { say })).folder;
const dataDir = await mkdtemp(join(tmpdir(), "hone-judge-"));
const dtype = values.dtype === "float32" ? "float32" : "bfloat16";
const server = await startServer({ base, dataDir, dtype });
try {
  process.env["HONE_URL"] = server.url;
  process.env["HONE_API_KEY"] = server.key;
  process.env["HONE_RULER_SECRET"] = "of-the-bench";
  await new Hone({ baseURL: server.url, apiKey: server.key }).model({ name: "judge" });
  const groups = Array.from({ length: Number(values.groups) }, (_, number) => groupOf(number));
  const rows = [];
  for (const format of values.formats.split(",") as (StructuredOutput | "unbound")[]) {
    rows.push(await judgeAll(groups, format));
    console.log(JSON.stringify(rows.at(-1)));
  }
  console.table(rows);
} finally {
  await server.close();
  await rm(dataDir, { recursive: true, force: true });
}
