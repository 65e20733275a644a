import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askedAgain } from "@hone/core";
import { expect, it, onTestFinished, vi } from "vitest";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { readJudgePrompt } from "../testing/judge-prompt.ts";
import * as steps from "../testing/judge-steps.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";
import { rulerScoreGroup } from "./score-group.ts";

it("a group that is asked about again is shown in the reverse order, and no answer is remembered", async () => {
  const home = await mkdtemp(join(tmpdir(), "hone-ruler-"));
  vi.stubEnv("HONE_HOME", home);
  let asked = 0;
  const judge = await ScriptedJudge.start({
    otherwise: steps.score(() => (asked += 1) / 10),
  });
  onTestFinished(async () => {
    vi.unstubAllEnvs();
    await judge.close();
    await rm(home, { recursive: true });
  });
  const group = groupOf("a", "b", "c");
  const first = await rulerScoreGroup(group, judge.endpoint);
  const again = await rulerScoreGroup(askedAgain(group), judge.endpoint);
  expect(judge.requests).toHaveLength(2);
  expect(rewardsOf(again)).not.toEqual(rewardsOf(first));
  const shown = judge.requests.map((request) =>
    readJudgePrompt(request.body.messages).attempts.map(({ finalText }) => finalText),
  );
  expect(shown[1]).toEqual(shown[0]?.toReversed());
  await rulerScoreGroup(askedAgain(group), judge.endpoint);
  expect(judge.requests).toHaveLength(3);
});
