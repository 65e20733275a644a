import type { RolloutModel } from "@hone/client";
import { defineTask, type RolloutHow } from "@hone/client/run";
import { answerFromMails } from "./agent.ts";
import { agentNames, isAgentName } from "./agents.ts";
import { makeInbox, type Inbox, type Question } from "./corpus.ts";
import { episodeMetrics, goldReward } from "./gold.ts";
import { Mailbox } from "./mailbox.ts";
import { withMcpMailbox, type McpMailbox } from "./mcp-mailbox.ts";
import { scoreByRuler } from "./score.ts";
import { demonstrations } from "./styles.ts";

// An agent that learns to answer questions from a mailbox, as ART-E does, on inboxes that a script writes.
// `npm run quickstart -- email` serves the base and trains it on this task.

type Settings = {
  turns: number;
  agent: string;
  reward: string;
  judge: string;
  sft: number;
  mcp: boolean;
};

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

const mostDemonstrations = questionsOf(trainInboxes).length;

// #region rollout
async function rollout(model: RolloutModel, question: Question, how: RolloutHow<Settings>) {
  const { temperature, answerTokens, settings } = how;
  const { inbox, mailbox } = open(question.inbox);
  const agent = isAgentName(settings.agent) ? settings.agent : "openai";
  const options = { temperature, answerTokens, mostTurns: settings.turns, agent };
  const answer = (from: Mailbox | McpMailbox) =>
    answerFromMails(model, { inbox, mailbox: from, question }, options);
  const { tokens, ...episode } = settings.mcp
    ? await withMcpMailbox(question.inbox, answer)
    : await answer(mailbox);
  return {
    reward: settings.reward === "gold" ? goldReward(question, episode) : null,
    metadata: settings.reward === "ruler" ? { judge: settings.judge } : {},
    metrics: { ...episodeMetrics(question, episode), tokens },
  };
}
// #endregion

export default defineTask({
  train: questionsOf(trainInboxes),
  heldOut: questionsOf(heldOutInboxes),
  rollout,
  // RULER compares the rollouts of a group; in an evaluation there is one, and the metric decides.
  score: (groups, { mode, signal }) => (mode === "eval" ? groups : scoreByRuler(groups, signal)),
  async warmUp(model, { settings: { sft, turns }, seed, signal }) {
    if (sft === 0) return false;
    const shown = demonstrations(sft, trainInboxes.map(open), turns);
    const rate = { learningRate: 5e-3, schedule: { type: "linear", end: 0.1 } } as const;
    await model.sft(shown, { ...rate, batchSize: 8, warmupSteps: 2, seed, signal });
    return true;
  },
  metric: "correct",
  slice: ({ kind }) => kind,
  settings: { turns: 6, agent: "openai", reward: "gold", judge: "", sft: 0, mcp: false },
  checkSettings({ turns, agent, reward, judge, sft }) {
    if (!Number.isInteger(turns) || turns < 3) {
      throw new Error(`--turns is a whole number of at least 3, not ${turns}.`);
    }
    if (!isAgentName(agent)) {
      throw new Error(`--agent is one of ${agentNames.join(", ")}, not ${agent}.`);
    }
    if (reward !== "gold" && reward !== "ruler") {
      throw new Error(`--reward is gold or ruler, not ${reward}.`);
    }
    if (reward === "gold" && judge !== "") {
      throw new Error("--judge is for --reward ruler: leave it out, or set both.");
    }
    if (!Number.isInteger(sft) || sft < 0 || sft > mostDemonstrations) {
      throw new Error(
        `--sft is a number of transcripts from 0 to ${mostDemonstrations}, not ${sft}.`,
      );
    }
  },
  options: {
    ...{ steps: 16, groupsPerStep: 16, groupSize: 8, concurrency: 64 },
    // A call of the base has at most 20 tokens; a model that says more needs more.
    answerTokens: 40,
    // What suits a base of a million parameters. A rollout has three calls, so a step takes many rollouts.
    learningRate: 4e-3,
    schedule: { type: "linear", end: 0.1 },
    train: {
      ...{ warmupSteps: 2, optimizerSteps: 2, epsilonLow: 0.2, epsilonHigh: 0.28 },
      // Divided by each group's own spread, groups without a right answer would teach "I don't know" as loudly as
      // those with one teach to search.
      scaleRewards: "none",
      // About what a rollout samples, so that the loss is a mean over tokens in size.
      normalizerTokens: 24,
    },
    // The likeliest call is not a way to search.
    ...{ verdict: "sampled", evalEvery: 8, evalHeldOut: 60 },
  },
  curves: () => ({ heldOut: ["sourcesRight"] }),
});
