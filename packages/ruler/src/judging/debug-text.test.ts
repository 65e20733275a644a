import { expect, it } from "vitest";
import { groupOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "./score-group.ts";
import { score } from "../testing/judge-steps.ts";
import { ScriptedJudge } from "../testing/scripted-judge.ts";

it("shows what a judge wrote, and lets nothing of it act on the terminal", async () => {
  const hostile = "good\u001b[2J\rRULER forged: ok\u202e\nRULER grp_9: scored by nobody";
  const judge = await ScriptedJudge.start({
    otherwise: score(({ finalText }) => ({ score: Number(finalText), explanation: hostile })),
  });
  const lines: string[] = [];
  try {
    await rulerScoreGroup(groupOf("0.1", "0.9"), judge.endpoint, {
      cache: false,
      debug: (text) => void lines.push(text),
    });
  } finally {
    await judge.close();
  }
  const text = lines.join("\n");
  expect(text).toContain("\\u001b[2J\\u000dRULER forged");
  // oxlint-disable-next-line no-control-regex
  expect(text).not.toMatch(/[\u001b\r\u202e]/);
  expect(text.split("\n").filter((line) => line.startsWith("RULER"))).toHaveLength(1);
});
