import { execFileSync } from "node:child_process";
import { createServer } from "node:net";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createProject,
  filesUnder,
  type Ended,
  type PackedProject,
  type ServedProject,
} from "./packed-project.ts";

/** Made by scripts/packed.mjs, which builds on what a plain run of vitest does not. */
const tarballs = process.env["HONE_TARBALLS"];

/** What a user would write to see that it works. */
const agent = `import { gather, Hone } from "@hone/client";
async function rollout(model, { prompt }) {
  const { baseURL, apiKey, model: name } = model.connection();
  const headers = { authorization: "Bearer " + apiKey, "content-type": "application/json" };
  const body = JSON.stringify({ model: name, messages: [{ role: "user", content: prompt }], max_tokens: 8 });
  const response = await fetch(baseURL + "/chat/completions", { method: "POST", headers, body });
  return { reward: (await response.json()).choices[0].message.content.length + Math.random() };
}
const model = await new Hone().model({ name: "packed" });
const groups = await gather(model, rollout, [{ prompt: "Say a word." }], { groupSize: 4 });
console.log(JSON.stringify(await model.train(groups)));
`;

/** A judge that is a program, and a reward function in plain JavaScript. */
const judging = `import { ruler } from "@hone/ruler";
import { numericMatch } from "@hone/ruler/rewards";
import { score, ScriptedJudge } from "@hone/ruler/testing";
const judge = await ScriptedJudge.start({ otherwise: score(({ finalText }) => Number(finalText)) });
const question = { role: "user", content: "How sure are you?" };
const say = (content) => [question, { role: "assistant", content }];
const { scores } = await ruler([say("0.25"), say("0.75")], judge.endpoint, { cache: false });
await judge.close();
console.log(JSON.stringify(scores.map((one) => one.score)), typeof numericMatch);
`;
const longest =
  "export default (outputs) => outputs.map(({ messages }) => messages.at(-1).content.length);";
const scoreByLength = "export default ({ messages }) => messages.at(-1).content.length;";

/** A task in TypeScript, as docs/run.md shows one: the base of this repository learns it in seconds. */
const task = `import { splitScenarios } from "@hone/client";
import { defineTask, type RolloutHow } from "@hone/client/run";

const prompts: string[] = Array.from({ length: 40 }, (_, number) => \`Say a word. \${number}\`);

export default defineTask({
  ...splitScenarios(prompts, { heldOut: 16 }),
  async rollout(model, content: string, { temperature, seed }: RolloutHow) {
    const { baseURL, apiKey, model: name } = model.connection();
    const headers = { authorization: "Bearer " + apiKey, "content-type": "application/json" };
    const messages = [{ role: "user", content }];
    const body = JSON.stringify({ model: name, messages, max_tokens: 4, temperature, seed });
    const response = await fetch(baseURL + "/chat/completions", { method: "POST", headers, body });
    return (await response.json()).choices[0].message.content === "yes" ? 1 : 0;
  },
  options: {
    ...{ steps: 8, groupsPerStep: 4, groupSize: 16, concurrency: 64, learningRate: 5e-3 },
    train: { warmupSteps: 0, normalizerTokens: 2 },
  },
});
`;

describe.runIf(tarballs)("the packed packages in an empty project", { shuffle: false }, () => {
  // Its own folder, so that no package.json or node_modules of ours is above it.
  const folder = mkdtempSync(join(tmpdir(), "hone-packed-"));
  let project: PackedProject;
  let python: string;
  let server: ServedProject | undefined;

  beforeAll(async () => {
    project = createProject(join(folder, "agent"));
    const files = readdirSync(tarballs ?? "").map((name) => join(tarballs ?? "", name));
    // What this Node lacks to read a task in TypeScript.
    const tsx = "typescript" in process.features ? [] : ["tsx@4.23.15"];
    const install = ["install", "--no-audit", "--no-fund", ...files, ...tsx];
    const installed = await project.run("npm", install);
    expect(installed.status, installed.stderr).toBe(0);
  });
  afterAll(async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    // Tens of thousands of files, on a disk that others use too.
  });

  const hone = (args: string[], env?: Record<string, string>): Promise<Ended> =>
    project.run("npx", ["--no", "@hone/server", ...args], env);

  it("are what was meant to be shipped", () => {
    const names = readdirSync(join(project.folder, "node_modules", "@hone"));
    expect(names).toEqual(expect.arrayContaining(["client", "core", "recipes", "ruler", "server"]));
    for (const name of names) {
      const at = join(project.folder, "node_modules", "@hone", name);
      const files = filesUnder(at);
      expect(files).toEqual(expect.arrayContaining(["LICENSE", "README.md", "dist/index.js"]));
      const { exports } = JSON.parse(readFileSync(join(at, "package.json"), "utf8")) as {
        exports: Record<string, unknown>;
      };
      const ours = /\.test[.-]|(^|\/)tests?\/|__pycache__|\.pyc$|tsbuildinfo/;
      // One that exports its stand-ins for users' tests ships them.
      const testing = "./testing" in exports ? /(?!)/ : /\/testing\//;
      expect(files.filter((file) => ours.test(file) || testing.test(file))).toEqual([]);
      const manifest = readFileSync(join(at, "package.json"), "utf8");
      expect(manifest).not.toContain("workspace:");
      expect(JSON.stringify(exports)).not.toContain("@hone/source");
      // Every source map leads to a file that is there.
      const maps = files.filter((file) => file.endsWith(".map"));
      for (const map of maps) {
        const { sources } = JSON.parse(readFileSync(join(at, map), "utf8")) as {
          sources: string[];
        };
        for (const source of sources) {
          expect(existsSync(join(at, dirname(map), source)), `${map}: ${source}`).toBe(true);
        }
      }
    }
    const worker = join(project.folder, "node_modules", "@hone", "server", "worker");
    const modules = /^hone_worker\/(\w+\/)*\w+\.py$/;
    const rest = filesUnder(worker).filter((file) => !modules.test(file));
    expect(rest).toContain("requirements/worker.txt");
    expect(rest.filter((file) => !/^requirements\/[\w-]+\.txt$/.test(file))).toEqual([
      "hone_vllm.py",
    ]);
  });

  it("judge, and check a reward function", async () => {
    const at = (name: string) => join(project.folder, name);
    writeFileSync(at("judging.mjs"), judging);
    const judged = await project.run("node", ["judging.mjs"]);
    expect(judged.stdout.trim(), judged.stderr).toBe("[0.25,0.75] function");

    writeFileSync(at("reward.mjs"), scoreByLength);
    const none = { rolloutId: null, model: null, policy: null, tools: null, reward: null };
    const said = (content: string) => ({
      ...{
        ...none,
        histories: [],
        metrics: {},
        metadata: {},
        logs: [],
        startedAt: 0,
        durationMs: 0,
      },
      usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
      messages: [{ role: "assistant", content }],
    });
    const trajectories = [said("short"), said("a longer one")];
    const group = { id: "g", trajectories, exceptions: [], metadata: {}, metrics: {}, logs: [] };
    writeFileSync(at("groups.jsonl"), `${JSON.stringify(group)}\n`);
    const check = ["--no", "@hone/ruler", "check", "groups.jsonl", "--reward"];
    const checked = await project.run("npx", [...check, "./reward.mjs"]);
    expect(checked, checked.stderr).toMatchObject({ status: 0 });
    expect(checked.stdout).toMatch(/groups/);

    writeFileSync(at("judge.mjs"), longest);
    const doctor = ["--no", "@hone/recipes", "judge-doctor", "--groups", "groups.jsonl"];
    const examined = await project.run("npx", [
      ...doctor,
      "--judges",
      "./judge.mjs",
      "--gold",
      "none",
    ]);
    expect(examined, examined.stderr).toMatchObject({ status: 0 });
    expect(examined.stdout).toMatch(/verdict +good/);
  });

  it("find their command, and set up Python", async () => {
    expect((await hone(["--version"])).stdout.trim()).toMatch(/^\d+\.\d+\.\d+$/);
    const made = await hone(["setup", "--json"]);
    expect(made.status, made.stderr).toBe(0);
    ({ python } = JSON.parse(made.stdout) as { python: string });
    const checked = await hone(["setup", "--check", "--json"]);
    expect(JSON.parse(checked.stdout)).toMatchObject({ ok: true, python, problems: [] });
  }, 600_000);

  it("train a step", async () => {
    server = await project.serve(["--base", "base", "--port", "0", "--data-dir", "data"]);
    writeFileSync(join(project.folder, "agent.mjs"), agent);
    const ran = await project.run("node", ["agent.mjs"], server.variables);
    expect(ran.status, ran.stderr).toBe(0);
    expect(JSON.parse(ran.stdout)).toMatchObject({ trained: true, step: 1 });
    const policy = join(project.folder, "data", "models", "packed", "policies", "1");
    expect(existsSync(join(policy, "adapter_model.safetensors"))).toBe(true);
  });

  it("train a task from start to verdict, though it is interrupted", async () => {
    writeFileSync(join(project.folder, "one-word.ts"), task);
    const train = ["--no", "@hone/client", "train", "one-word.ts"];
    const env = server?.variables;
    const refused = await project.run("npx", [...train, "--stepz", "1"], env);
    expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining("'--stepz'") });

    const cut = await project.interrupt("npx", [...train, "--seed", "3"], /^step 2\/8 /m, env);
    expect(cut.stderr).toMatch(
      /Stopped\. On the same server .* train one-word\.ts --resume --out /,
    );
    expect(cut.stdout).not.toContain("It has learnt");

    const { status, stdout, stderr } = await project.run("npx", [...train, "--resume"], env);
    expect(stdout, stderr).toMatch(/It has learnt: 0\.\d\d → /);
    expect(stdout).toMatch(/^Wall time .* over 2 starts$/m);
    // The base's answers stand, the steps go on, the options are those that it began with.
    expect(stdout).not.toMatch(/evaluating base|^step [12]\/8 /m);
    const [run = ""] = readdirSync(join(project.folder, "runs"));
    const at = (name: string) => join(project.folder, "runs", run, name);
    expect(JSON.parse(readFileSync(at("summary.json"), "utf8"))).toMatchObject({
      ...{ learnt: true, seed: 3, starts: 2, heldOut: 16 },
    });
    expect(status).toBe(0);
  });

  describe("say in one line why they do not serve", () => {
    /** Exit status 1, one line of ours, nothing but npm's own remarks besides, and where it is slow that it starts. */
    function expectOneLine({ status, stderr, stdout }: Ended, pattern: RegExp): void {
      const lines = stderr
        .split("\n")
        .filter((line) => line && !/^npm |^hone: starting, for \d+ s so far/.test(line));
      expect(lines).toEqual([expect.stringMatching(pattern)]);
      expect(stdout).toBe("");
      expect(status).toBe(1);
    }
    const serve = (args: string[], env?: Record<string, string>): Promise<Ended> =>
      hone(["serve", "--port", "0", "--data-dir", "other", ...args], env);

    it("a second server on the same data directory", async () => {
      const second = await serve(["--base", "base", "--data-dir", "data"]);
      expectOneLine(second, /^hone: Another Hone server \(pid \d+\) uses the data directory/);
    });

    it("a port that is taken", async () => {
      const taken = createServer().listen(0, "127.0.0.1");
      await once(taken, "listening");
      const { port } = taken.address() as { port: number };
      const second = await serve(["--base", "base", "--port", String(port)]);
      taken.close();
      expectOneLine(second, /^hone: Port \d+ on 127\.0\.0\.1 is taken\./);
    });

    it("a base that is missing", async () => {
      expectOneLine(await serve(["--base", "./absent"]), /^hone: There is no folder .*absent/);
      expectOneLine(await serve(["--base", "data"]), /^hone: .*data is not a model/);
    });

    it("a base on a hub that cannot be reached", async () => {
      const env = { HF_HUB_OFFLINE: "1", HF_HOME: join(folder, "hub") };
      const line = /^hone: .*'no-one\/nothing' is not in this machine's hub cache/;
      expectOneLine(await serve(["--base", "no-one/nothing"], env), line);
    });

    it("a Python environment that is missing, or broken", async () => {
      const cache = join(folder, "cache");
      const env = { HONE_CACHE: cache };
      const missing = /^hone: The Python environment is missing .*npx @hone\/server setup/;
      expectOneLine(await serve(["--base", "base"], env), missing);

      const environment = dirname(dirname(python));
      const copy = join(cache, "envs", environment.split("/").at(-1) ?? "");
      mkdirSync(dirname(copy), { recursive: true });
      // A copy of links: the files themselves are the shared cache's.
      execFileSync("cp", [process.platform === "linux" ? "-al" : "-R", environment, copy]);
      const site = join(copy, "lib", readdirSync(join(copy, "lib"))[0] ?? "", "site-packages");
      rmSync(join(site, "safetensors"), { recursive: true });
      const broken =
        /^hone: The Python environment is broken: safetensors is damaged .*npx @hone\/server setup/;
      expectOneLine(await serve(["--base", "base"], env), broken);
      expectOneLine(await hone(["setup", "--check"], env), broken);
    });
  });

  it("stop when they are told to, and leave nothing listening", async () => {
    const url = server?.variables["HONE_URL"] ?? "";
    expect((await fetch(`${url}/health`)).status).toBe(401);
    await server?.stop();
    // Its port may be another's by now, which knows nothing of its key.
    const headers = { authorization: `Bearer ${server?.variables["HONE_API_KEY"]}` };
    const status = await fetch(`${url}/health`, { headers }).then(
      (response) => response.status,
      () => null,
    );
    expect(status).not.toBe(200);
    expect(existsSync(join(project.folder, "data", "server.json"))).toBe(false);
  });
});
