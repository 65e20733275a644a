import type { RolloutModel } from "@hone/client";
import { defineTask, type RolloutHow } from "@hone/client/run";
import { rulerScoreGroup, supportEmailRubric } from "@hone/ruler";
import { answerFromMails } from "./agent.ts";
import { makeInbox, type Inbox, type Question } from "./corpus.ts";
import { episodeMetrics, goldReward } from "./gold.ts";
import { Mailbox } from "./mailbox.ts";

// An agent that learns to answer questions from a mailbox, as ART-E does, on inboxes that a script writes.

type Settings = { turns: number; reward: string; judge: string };

/** The people of the held-out questions are not those of training. */
const trainInboxes = [0, 1, 2, 3, 4, 5, 6];
const heldOutInboxes = [7, 8, 9];

const opened = new Map<number, { inbox: Inbox; mailbox: Mailbox }>();
function open(number: number): { inbox: Inbox; mailbox: Mailbox } {
  let one = opened.get(number);
  if (one === undefined) {
    const inbox = makeInbox(number);
    one = { inbox, mailbox: new Mailbox(inbox.mails) };
    opened.set(number, one);
  }
  return one;
}

const questionsOf = (inboxes: readonly number[]): Question[] =>
  inboxes.flatMap((inbox) => makeInbox(inbox).questions);

// #region rollout
async function rollout(model: RolloutModel, question: Question, how: RolloutHow<Settings>) {
  const { temperature, answerTokens, settings } = how;
  const { tokens, ...episode } = await answerFromMails(
    model,
    { ...open(question.inbox), question },
    { temperature, answerTokens, mostTurns: settings.turns },
  );
  return {
    reward: settings.reward === "gold" ? goldReward(question, episode) : null,
    metadata: { judge: settings.judge },
    metrics: { ...episodeMetrics(question, episode), tokens },
  };
}
// #endregion

export default defineTask({
  train: questionsOf(trainInboxes),
  heldOut: questionsOf(heldOutInboxes),
  rollout,
  // RULER compares the rollouts of a group; in an evaluation there is one, and the metric decides.
  score: (groups, { mode, signal }) =>
    mode === "eval"
      ? groups
      : Promise.all(
          groups.map(async (group) => {
            const judge = group.trajectories[0]?.metadata["judge"];
            return typeof judge === "string" && judge !== ""
              ? rulerScoreGroup(group, judge, { rubric: supportEmailRubric, signal })
              : group;
          }),
        ),
  metric: "correct",
  slice: ({ kind }) => kind,
  settings: { turns: 6, reward: "gold", judge: "" },
  checkSettings({ turns, reward, judge }) {
    if (!Number.isInteger(turns) || turns < 3) {
      throw new Error(`--turns is a whole number of at least 3, not ${turns}.`);
    }
    if (reward !== "gold" && reward !== "ruler") {
      throw new Error(`--reward is gold or ruler, not ${reward}.`);
    }
    if (reward === "ruler" && judge === "") {
      throw new Error("--reward ruler needs a judge, such as --judge openai/o4-mini.");
    }
    if (reward === "gold" && judge !== "") {
      throw new Error("--judge is for --reward ruler: leave it out, or set both.");
    }
  },
  options: {
    ...{ steps: 16, groupsPerStep: 8, groupSize: 8, concurrency: 64, answerTokens: 128 },
    ...{ verdict: "sampled", evalEvery: 8, evalHeldOut: 60 },
  },
  curves: () => ({ heldOut: ["sourcesRight"] }),
});
