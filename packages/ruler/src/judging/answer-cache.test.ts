import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { group, groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "./score-group.ts";
import * as steps from "../testing/judge-steps.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";

let home: string;
let judge: ScriptedJudge;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "hone-ruler-"));
  vi.stubEnv("HONE_HOME", home);
  vi.stubEnv("HONE_RULER_SECRET", "");
  judge = await ScriptedJudge.start({
    otherwise: steps.score(({ finalText }) => Number.parseFloat(finalText)),
  });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await judge.close();
  await rm(home, { recursive: true });
});

async function files(): Promise<string[]> {
  const found = await readdir(home, { recursive: true });
  return found.filter((name) => name.endsWith(".json"));
}

describe("the cache of answers", () => {
  it("answers for a group that was judged, in whatever order its members stand", async () => {
    const members = groupOf("0.1", "0.5", "0.9").trajectories;
    const first = await rulerScoreGroup(group(members), judge.endpoint);
    const again = await rulerScoreGroup(group(members.toReversed()), judge.endpoint);
    expect(judge.requests).toHaveLength(1);
    expect(rewardsOf(first)).toEqual([0.1, 0.5, 0.9]);
    expect(rewardsOf(again)).toEqual([0.9, 0.5, 0.1]);
    expect(again.metrics).toMatchObject({
      "ruler/calls": 0,
      "ruler/cached_answers": 1,
      "ruler/prompt_tokens": 0,
      "ruler/cost_usd": 0,
    });
  });

  it.runIf(existsSync("/proc/self"))("does without where no folder can be made", async () => {
    vi.stubEnv("HONE_HOME", "/proc/hone");
    const judged = await rulerScoreGroup(groupOf("0.1", "0.5"), judge.endpoint);
    expect(rewardsOf(judged)).toEqual([0.1, 0.5]);
  });

  it("asks again for other content, rubric, seed, parameters and model", async () => {
    // Four members have 24 orders, and where a second seed gives the same one the prompt is the same.
    vi.stubEnv("HONE_RULER_SECRET", "one under which the two seeds give two orders");
    const ask = (options = {}, model = "scripted") =>
      rulerScoreGroup(groupOf("0.1", "0.5", "0.6", "0.9"), { ...judge.endpoint, model }, options);
    await ask();
    await ask({ rubric: "Shorter is better." });
    await ask({ seed: 5 });
    await ask({ parameters: { temperature: 0 } });
    await ask({}, "other");
    expect(judge.requests).toHaveLength(5);
    await ask({ seed: 5 });
    expect(judge.requests).toHaveLength(5);
  });

  it("is off where the user says so", async () => {
    for (let n = 0; n < 2; n += 1) {
      await rulerScoreGroup(groupOf("0.1", "0.9"), judge.endpoint, { cache: false });
    }
    expect(judge.requests).toHaveLength(2);
    expect(await files()).toEqual([]);
  });

  it("is readable by its owner only, and asked again where a file is broken", async () => {
    await rulerScoreGroup(groupOf("0.1", "0.9"), judge.endpoint);
    const [name = ""] = await files();
    expect((await stat(join(home, name))).mode & 0o077).toBe(0);
    expect((await stat(join(home, "ruler-secret"))).mode & 0o077).toBe(0);
    await writeFile(join(home, name), '{"content": "{\\"scores\\": []}", "reas');
    const scored = await rulerScoreGroup(groupOf("0.1", "0.9"), judge.endpoint);
    expect(rewardsOf(scored)).toEqual([0.1, 0.9]);
    expect(judge.requests).toHaveLength(2);
  });

  it("does not keep an answer that does not hold", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const bad = await ScriptedJudge.start({ otherwise: steps.wrongIds() });
    await rulerScoreGroup(groupOf("0.1", "0.9"), bad.endpoint);
    await bad.close();
    expect(await files()).toEqual([]);
    vi.restoreAllMocks();
  });

  it("two processes that start at once share one secret", async () => {
    const { platform } = await import("../platform-node.ts");
    const secrets = await Promise.all(Array.from({ length: 8 }, () => platform.installSecret()));
    expect(new Set(secrets).size).toBe(1);
    expect((await readFile(join(home, "ruler-secret"), "utf8")).trim()).toBe(secrets[0]);
  });
});
