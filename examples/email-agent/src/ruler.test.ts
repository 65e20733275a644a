import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { rulerScoreGroup, supportEmailRubric } from "@hone/ruler";
import { score, ScriptedJudge } from "@hone/ruler/testing";
import { expect, it, onTestFinished } from "vitest";
import { makeInbox } from "./corpus.ts";
import { goldReward } from "./gold.ts";
import { Mailbox } from "./mailbox.ts";
import { scoreByRuler } from "./score.ts";
import { followTheRubric } from "./rubric-scorer.ts";
import { expert, play, type Style } from "./styles.ts";

const inbox = makeInbox(7);
const mailbox = new Mailbox(inbox.mails);
const ways: Style[] = [
  expert,
  { ...expert, cites: false },
  { ...expert, reads: "oldest" },
  { ...expert, keywords: "project", reads: "newest" },
  { ...expert, reads: "none" },
];

it("lets RULER with the support-mail rubric order the ways as the gold reward does", async () => {
  const judge = await ScriptedJudge.start({ otherwise: score(followTheRubric) });
  onTestFinished(() => judge.close());
  let [agree, differ] = [0, 0];
  for (const question of inbox.questions.slice(0, 20)) {
    const played = ways.map((way) => play(way, { inbox, mailbox, question }));
    const scored = await rulerScoreGroup(groupOf(played), judge.endpoint, {
      ...{ rubric: supportEmailRubric, cache: false, swallowErrors: false },
    });
    const gold = played.map(({ episode }) => goldReward(question, episode));
    const rewards = scored.trajectories.map(({ reward }) => reward ?? Number.NaN);
    for (const [one, a] of gold.entries()) {
      for (const [other, b] of gold.entries()) {
        if (a - b < 0.25) continue;
        if (rewards[one]! > rewards[other]!) agree += 1;
        else differ += 1;
      }
    }
  }
  expect(agree).toBeGreaterThan(80);
  expect(agree / (agree + differ)).toBeGreaterThan(0.9);
});

it("scores by that program the groups that name no judge, and leaves those of the gold reward alone", async () => {
  const question = inbox.questions[0]!;
  const played = ways.map((way) => play(way, { inbox, mailbox, question }));
  const gold = groupOf(played);
  const [scored, same] = await scoreByRuler(
    [groupOf(played, { judge: "" }), gold],
    new AbortController().signal,
  );
  expect(same).toBe(gold);
  const rewards = scored?.trajectories.map(({ reward }) => reward) ?? [];
  expect(rewards[0]).toBe(1);
  expect(Math.max(...rewards.slice(1).map(Number))).toBeLessThan(1);
});

it("scores an honest end higher the closer it came, and takes arguments that are no JSON for no answer", () => {
  const call = (name: string, args: string) => ({
    ...{ role: "assistant", content: "" },
    tool_calls: [{ name, arguments: args }],
  });
  const tool = (content: unknown) => ({ role: "tool", content: JSON.stringify(content) });
  const end = (...results: unknown[]) =>
    scoreOf([
      call("search_emails", "{}"),
      ...results.map(tool),
      call("return_final_answer", '{"answer":"I don\'t know","sources":[]}'),
    ]);
  const [hit, other] = ["Ember room", "Ember time"].map((snippet) => ({
    message_id: "m1",
    snippet,
  }));
  expect(end([hit])).toBeGreaterThan(end([other]));
  expect(end([hit], { error: "There is no such mail." })).toBeLessThan(end([hit]));
  expect(scoreOf([call("return_final_answer", '{"answer":')])).toBe(0);
});

function scoreOf(records: Record<string, unknown>[]): number {
  const task = [{ role: "user", content: "What is the room of Ember?" }];
  const attempt = { id: "a", records, finalText: "" };
  const scored = followTheRubric(attempt, {
    ...{ system: "", task, tools: [], attempts: [attempt], outside: [] },
  });
  return typeof scored === "number" ? scored : scored.score;
}

function groupOf(
  played: readonly ReturnType<typeof play>[],
  metadata: Trajectory["metadata"] = {},
): TrajectoryGroup {
  const trajectories = played.map(({ messages, tools }): Trajectory => ({
    ...{ rolloutId: null, model: null, policy: null, histories: [], reward: null },
    messages: messages as Trajectory["messages"],
    tools: tools as unknown as Trajectory["tools"],
    ...{ metrics: {}, metadata, logs: [], startedAt: 0, durationMs: 0 },
    usage: { completions: 1, promptTokens: 0, completionTokens: 0 },
  }));
  return {
    ...{ id: "g", scenario: {}, exceptions: [], metadata: {}, metrics: {}, logs: [] },
    trajectories,
  };
}
