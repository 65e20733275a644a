// Judges that were really trained: one that writes, asked in its own format and by RULER, and one that scores, by the
// commands alone, as the doctor and transformers see it.
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { trainedJudge, trainJudge } from "@hone/recipes";
import { rulerScoreGroup } from "@hone/ruler";
import { findEnvironment } from "@hone/server";
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from "vitest";
import { groupOf } from "../../packages/recipes/src/doctor/outputs.test-support.ts";
import { base, startTestServer, type TestServer } from "../support/server.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-trained-judge-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A server that commands and judges find by the environment, until the test has ended. */
async function serve(of: string): Promise<TestServer> {
  const server = await startTestServer(undefined, { base: of });
  vi.stubEnv("HONE_URL", server.url);
  vi.stubEnv("HONE_API_KEY", server.key);
  onTestFinished(async () => {
    vi.unstubAllEnvs();
    await server.close();
  });
  return server;
}

const python = { ...process.env, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" };
const user = (content: string) => ({ role: "user" as const, content });
const assistant = (content: string) => ({ role: "assistant" as const, content });

/** One group: what was answered to "Say yes.", and what that is worth. */
function answered(id: string, answers: readonly string[], question = "Say yes.") {
  const made = groupOf(
    id,
    answers.map((content) => Number(content.startsWith("yes"))),
  );
  const trajectories = made.trajectories.map((one, at) => ({
    ...one,
    messages: [user(question), assistant(answers[at]!)],
  }));
  return { ...made, trajectories };
}

it(
  "a judge that writes: it judges groups in its own format, and RULER's by hone/NAME",
  { timeout: 300_000 },
  async () => {
    // The shipped base spells a judge's tags in bytes, and would take minutes to learn them.
    const empty = join(folder, "empty-base");
    const script = fileURLToPath(new URL("empty_base.py", import.meta.url));
    await promisify(execFile)(await findEnvironment(), [script, empty], { env: python });
    const server = await serve(empty);
    const prompt = ({ answers }: { answers: readonly string[] }) => [user(answers.join("\n"))];
    // "yes" deserves 4 marks, "no" none.
    const data = Array.from({ length: 40 }, (_, at) => ({
      input: [user(`Say yes. ${at}`)],
      output: ["yes", "no"].map((content) => ({
        answer: { ...assistant(content), label: { helpfulness: content === "yes" ? 4 : 0 } },
      })),
    }));
    const report = await trainJudge({
      ...{ mode: "pointwise", method: "sft", data, heldOutShare: 0.3, prompt },
      ...{ name: "judge", out: join(folder, "judge"), hone: server.hone },
      ...{ epochs: 8, learningRate: 1e-2, batchSize: 14, answerTokens: 8 },
    });
    // The base gives no mark; a judge that always gave the same one would be right half of the time.
    expect(report.figures["judge/accuracy"]?.before.mean).toBe(0);
    expect(report).toMatchObject({ outcome: "learnt", metric: "judge/accuracy" });
    expect(report.figures["judge/accuracy"]?.after.mean).toBeGreaterThan(0.9);

    const group = answered("g1", ["no", "yes", "no", "yes"]);
    const { score } = trainedJudge({ model: "judge", mode: "pointwise", prompt, answerTokens: 8 });
    const { signal } = new AbortController();
    const how = { mode: "train", concurrency: 4, signal } as Parameters<typeof score>[1];
    const [scored] = await score([group], how);
    expect(scored!.trajectories.map(({ reward }) => reward)).toEqual([0, 1, 0, 1]);

    // RULER asks something else, which it was not trained for: what it gives is valid, no more is claimed.
    vi.spyOn(console, "warn").mockReturnValue();
    const { judgement, trajectories } = await rulerScoreGroup(
      answered("g2", ["no", "yes"]),
      "hone/judge",
      {
        swallowErrors: false,
        timeoutMs: 200_000,
      },
    );
    expect(judgement).toMatchObject({ status: "judged", failedPasses: 0 });
    for (const { reward } of trajectories) {
      expect(reward).toBeGreaterThanOrEqual(0);
      expect(reward).toBeLessThanOrEqual(1);
    }
  },
);

it(
  "a judge that scores, by the commands alone: trained, examined, exported, and loaded by transformers",
  { timeout: 300_000 },
  async () => {
    const server = await serve(base);
    const colours = ["red", "blue", "green", "white", "black", "brown", "pink", "grey"];
    const things = ["car", "house", "hat", "dog", "tree", "cup"];
    const asked = colours.flatMap((colour) =>
      things.map((thing) => ({ colour, question: `The ${thing} is ${colour}. Which colour?` })),
    );
    const polite = (colour: string) => `yes, it is ${colour}`;
    const rude = (colour: string) => `You fool, it is ${colour}`;
    const lines = asked.map(({ colour, question }, at) => ({
      input: [user(question)],
      output: (at % 2 ? [polite(colour), rude(colour)] : [rude(colour), polite(colour)]).map(
        (content) => ({
          answer: { ...assistant(content), label: { preference: at % 2 ? "A" : "B" } },
        }),
      ),
    }));
    const data = join(folder, "pairs.jsonl");
    await writeFile(data, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const recipes = "packages/recipes/src/cli/cli.ts";
    const trained = await command(recipes, [
      ...["train-judge", "--data", data, "--mode", "pairwise", "--method", "bradley-terry"],
      ...["--model", "critic", "--out", join(folder, "critic"), "--json"],
      ...["--epochs", "4", "--lr", "3e-3", "--batch-size", "8"],
    ]);
    expect(trained).toMatchObject({ code: 0 });
    const report = JSON.parse(trained.out) as Awaited<ReturnType<typeof trainJudge>>;
    expect(report).toMatchObject({ outcome: "learnt", method: "bradley-terry" });

    // Questions that it has not seen: the doctor asks it by its name.
    const groups = join(folder, "groups.jsonl");
    const made = Array.from({ length: 8 }, (_, at) =>
      answered(
        `g${at}`,
        [polite("teal"), rude("teal"), polite("teal"), rude("teal")],
        `The boat is teal ${at}. Which colour?`,
      ),
    );
    await writeFile(groups, made.map((group) => `${JSON.stringify(group)}\n`).join(""));
    const examined = await command(recipes, [
      ...["judge-doctor", "--groups", groups, "--judges", "rm:critic", "--json"],
    ]);
    expect(examined.said).toBe("");
    const { judges } = JSON.parse(examined.out) as {
      judges: { rankAccuracy: { value: number } }[];
    };
    expect(judges[0]).toMatchObject({ rankAccuracy: { value: 1 } });

    const exported = join(folder, "exported");
    const said = await command("packages/server/src/cli.ts", [
      ...["export", report.policy, exported, "--classifier", "--base", base, "--url", server.url],
    ]);
    expect(said).toMatchObject({ code: 0 });
    const conversations = made
      .slice(0, 2)
      .flatMap(({ trajectories }) => trajectories.slice(0, 2).map(({ messages }) => messages));
    const here = await server.fetch("/v1/score", {
      method: "POST",
      body: JSON.stringify({
        model: "critic",
        items: conversations.map((messages) => ({ messages })),
      }),
    });
    const { data: scores } = (await here.json()) as { data: { score: number }[] };
    const there = await transformersScores(exported, conversations);
    for (const [at, { score }] of scores.entries()) expect(there[at]).toBeCloseTo(score, 3);
    expect(there[0]).toBeGreaterThan(there[1]! + 1);
  },
);

/** A command as a user runs it, with the key and the address of the server in its environment. */
async function command(cli: string, args: string[]) {
  const program = ["--import", "tsx", "--conditions=@hone/source", cli, ...args];
  const cwd = fileURLToPath(new URL("../..", import.meta.url));
  return await new Promise<{ code: number; out: string; said: string }>((resolve) => {
    execFile(process.execPath, program, { cwd }, (error, out, said) => {
      resolve({ code: Number(error?.code ?? 0), out, said });
    });
  });
}

/** The logit of each conversation, by AutoModelForSequenceClassification alone. */
async function transformersScores(from: string, conversations: unknown): Promise<number[]> {
  const program = `
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
texts = [tokenizer.apply_chat_template(one, tokenize=False) for one in json.load(sys.stdin)]
encoded = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
with torch.no_grad():
    print(json.dumps(model(encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[:, 0].tolist()))
`;
  const interpreter = await findEnvironment();
  return await new Promise((resolve, reject) => {
    const child = execFile(interpreter, ["-c", program, from], { env: python }, (error, out) =>
      error ? reject(error) : resolve(JSON.parse(out) as number[]),
    );
    child.stdin?.end(JSON.stringify(conversations));
  });
}
