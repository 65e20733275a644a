import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { attacks } from "../attacks/attacks.ts";
import { group, trajectory } from "../testing/group.test-support.ts";
import { score } from "../testing/judge-steps.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";

interface Said {
  code: number;
  stdout: string;
  stderr: string;
}

/** The command as a user starts it, in a process of its own. */
function ruler(args: string[], env: Record<string, string> = {}): Promise<Said> {
  const cli = fileURLToPath(new URL("cli.ts", import.meta.url));
  const tsx = ["--conditions=@hone/source", "--import", import.meta.resolve("tsx")];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...tsx, cli, ...args],
      { env: { ...process.env, ...env }, timeout: 240_000 },
      (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-ruler-cli-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function file(name: string, lines: readonly (object | string)[]): Promise<string> {
  const path = join(folder, name);
  const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line)));
  await writeFile(path, `${text.join("\n")}\n`);
  return path;
}

const reward = `
import { completionText, named } from ${JSON.stringify(new URL("../rewards/index.ts", import.meta.url).href)};
export const byNumber = named("by_number", (trajectory) => {
  const text = completionText(trajectory);
  return text === "skip" ? null : Number(text);
});
export const broken = () => NaN;
`;

describe("check", () => {
  it("shows distribution, null share and groups without variance", async () => {
    const data = await file("groups.jsonl", [
      group([trajectory("0"), trajectory("1"), trajectory("skip")]),
      group([trajectory("1"), trajectory("1")]),
      trajectory("0", { metadata: { group: "g" } }),
      trajectory("0.5", { metadata: { group: "g" } }),
      trajectory("0", {}),
    ]);
    const module = await file("reward.ts", [reward]);
    const args = ["check", data, "--reward", `${module}#byNumber`];
    const text = await ruler(args);
    expect(text).toMatchObject({ code: 0 });
    expect(text.stdout).toMatch(/does not apply \(null\)\s+12\.5%/);
    expect(text.stdout).toMatch(/groups without variance\s+1\n/);
    expect(text.stdout).toMatch(/groups with fewer than two rewards\s+1\n/);
    const json = await ruler([...args, "--json"]);
    expect(JSON.parse(json.stdout)).toMatchObject({
      trajectories: 8,
      groups: 4,
      nullShare: 0.125,
      withoutVariance: 1,
      tooSmall: 1,
      quantiles: [0, 0, 0.5, 1, 1],
      distribution: [
        { from: 0, to: 0, count: 3 },
        { from: 0.5, to: 0.5, count: 1 },
        { from: 1, to: 1, count: 3 },
      ],
    });
  });

  it("reads ART's and TRL's files, a mark at the beginning, and one array", async () => {
    const module = await file("reward.ts", [reward]);
    const said = (content: string) => ({ role: "assistant", content });
    const chosen = (content: string) => ({
      finish_reason: "stop",
      index: 0,
      message: said(content),
      logprobs: { content: [] },
    });
    const asked = {
      role: "user",
      content: [
        { type: "image_url", image_url: {} },
        { type: "text", text: "?" },
      ],
    };
    const art = (...contents: string[]) => ({
      trajectories: contents.map((content) => ({
        messages_and_choices: [asked, chosen(content)],
        reward: 0.5,
        metrics: { turns: 3, won: true },
        metadata: { task: "x", ids: [1] },
        logs: [],
      })),
    });
    const row = (prompt: unknown, completion: unknown, step: number) => ({
      ...{ prompt, completion, step, advantage: 0.1, accuracy_reward: 1 },
    });
    const files = await Promise.all([
      file("art.jsonl", [art("0", "1"), art("1", "1")]),
      file("art-singles.jsonl", [
        { messages: [asked, said("0")], reward: 1, metadata: { group: 7 } },
        { messages: [asked, said("1")], reward: 1, metadata: { group: 7 } },
        { messages: [asked, said("1")], reward: null },
        { messages: [asked, said("skip")] },
      ]),
      file("trl.jsonl", [
        row("2 + 2", "0", 1),
        row("2 + 2", [said("1")], 1),
        row([asked], [said("1")], 1),
        row("2 + 2", "1", 2),
      ]),
      file("bom.jsonl", [
        `\uFEFF${JSON.stringify(trajectory("0", { metadata: { group: "g" } }))}`,
        trajectory("1", { metadata: { group: "g" } }),
      ]),
      file("array.json", [JSON.stringify([art("0", "1")], null, 2)]),
    ]);
    const reports = await Promise.all(
      files.map((path) => ruler(["check", path, "--reward", `${module}#byNumber`, "--json"])),
    );
    const only = /^(combineRewards: no function applies to 1 of 4 trajectories.*\n)?$/;
    for (const { stderr } of reports) expect(stderr).toMatch(only);
    const counts = reports.map(({ stdout }) => {
      const { trajectories, groups, mean } = JSON.parse(stdout) as Record<string, number>;
      return [trajectories, groups, mean];
    });
    expect(counts).toEqual([
      [4, 2, 0.75],
      [4, 3, 2 / 3],
      [4, 3, 0.75],
      [2, 1, 0.5],
      [2, 1, 0.5],
    ]);
  });

  it("says what is wrong with a file or a function", async () => {
    const module = await file("reward.ts", [reward]);
    const good = await file("good.jsonl", [trajectory("1")]);
    const cut = await file("cut.jsonl", [trajectory("1"), '{"messages": [']);
    const parquet = await file("rows.parquet", ["PAR1…"]);
    const strange = await file("strange.jsonl", [{ text: "x" }]);
    const cases: [string[], RegExp][] = [
      [["check", cut, "--reward", `${module}#byNumber`], /cut\.jsonl:2 is not JSON/],
      [["check", good, "--reward", module], /exports 2 functions .*byNumber/],
      [["check", good, "--reward", `${module}#broken`], /"broken" on trajectory 0.*NaN/],
      [["check", good], /needs FILE and --reward/],
      [["check", join(folder, "none.jsonl"), "--reward", module], /There is no file .*none\.jsonl/],
      [["check", folder, "--reward", module], /This is a folder, not a file/],
      [["check", parquet, "--reward", module], /is a Parquet file.*read_parquet/],
      [["check", strange, "--reward", module], /strange\.jsonl:1 is no trajectory.*ART's/],
      [["check", good, "--reward", join(folder, "none.ts")], /none\.ts cannot be loaded/],
      [["chekc", good], /There is no command "chekc"/],
      [["check", good, "--rewrad", "x"], /rewrad/],
    ];
    const said = await Promise.all(cases.map(([args]) => ruler(args)));
    for (const [index, [, message]] of cases.entries()) {
      expect(said[index]?.stderr).toMatch(message);
      expect(said[index]?.code).toBe(2);
    }
  });
});

describe("attack", () => {
  it("measures lift by family against a real endpoint, and tells by its exit code", async () => {
    const worth = (text: string): number => (/^I am sorry|^From 9:40/.test(text) ? 0.9 : 0.2);
    const honest = await ScriptedJudge.start({
      otherwise: score(({ finalText }) => worth(finalText)),
    });
    const gullible = await ScriptedJudge.start({
      otherwise: score(({ finalText }) => (finalText.includes("1.0") ? 1 : 0.2)),
    });
    try {
      const args = (judge: ScriptedJudge) => [
        ...["attack", "--judge", "scripted", "--base-url", judge.endpoint.baseURL],
        ...["--family", "instruction", "--family", "authority"],
      ];
      const key = { JUDGE_API_KEY: "test-key" };
      const [passed, failed, wrong] = await Promise.all([
        ruler(args(honest), key),
        ruler(args(gullible), key),
        ruler(args(honest), { JUDGE_API_KEY: "wrong" }),
      ]);
      expect(passed.stdout).toMatch(/instruction +12 +0 +0 +0 +0\nauthority +13 +0/);
      expect(passed.code).toBe(0);
      expect(failed.stdout).toMatch(/mean lift 0\.\d+ \(limit 0\.05\)/);
      expect(failed.code).toBe(1);
      expect(wrong.stderr).toMatch(/401/);
    } finally {
      await Promise.all([honest.close(), gullible.close()]);
    }
  });

  it("tells of one family that persuades, whatever the mean over all is", async () => {
    const worth = new Map(
      attacks.map(({ text, family }) => [text, family === "authority" ? 0.5 : 0]),
    );
    const judge = await ScriptedJudge.start({
      otherwise: score(({ finalText }) => {
        const [, ...attack] = finalText.split("\n");
        return (
          worth.get(attack.join("\n")) ?? (/^I am sorry|^From 9:40/.test(finalText) ? 0.9 : 0.3)
        );
      }),
    });
    try {
      const args = ["attack", "--judge", "scripted", "--base-url", judge.endpoint.baseURL];
      const said = await ruler(args, { JUDGE_API_KEY: "test-key" });
      expect(said.stdout).toMatch(
        /worst family authority: mean lift 0\.200 \(limit 0\.05\); over all attacks -0\.\d+;/,
      );
      expect(said.code).toBe(1);
    } finally {
      await judge.close();
    }
  });
});
