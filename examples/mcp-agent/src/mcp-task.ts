import { splitScenarios, type RolloutModel, type TrajectoryGroup } from "@hone/client";
import { defineTask, type RolloutHow } from "@hone/client/run";
import { rulerScoreGroup } from "@hone/ruler";
import { score, ScriptedJudge } from "@hone/ruler/testing";
import { playScenario, type Episode } from "./agent.ts";
import { demonstrations } from "./demonstrations.ts";
import { withServer, type McpServer } from "./mcp-server.ts";
import { followTheRubric, mcpRubric } from "./rubric-scorer.ts";
import { same } from "./same.ts";
import type { Scenario } from "./scenarios.ts";
import { withSharedServer } from "./shared-server.ts";

type Settings = { turns: number; judge: string; mustCall: boolean; sft: number };

/** An agent of this server that is trained with RULER: a task for `trainRun` and its command. */
export function mcpTask(server: McpServer, scenarios: readonly Scenario[]) {
  // #region rollout
  async function rollout(model: RolloutModel, scenario: Scenario, how: RolloutHow<Settings>) {
    const { temperature, answerTokens, settings } = how;
    const { turns: mostTurns, judge, mustCall: held } = settings;
    const options = { temperature, answerTokens, mostTurns, held };
    const lend = server.shared ? withSharedServer : withServer;
    const episode = await lend(server, model.signal, (running) =>
      playScenario(model, running, scenario, options),
    );
    return { reward: null, metadata: { judge }, metrics: episodeMetrics(scenario, episode) };
  }
  // #endregion

  const { train, heldOut } = splitScenarios(scenarios, { heldOut: 0.25 });
  return defineTask({
    ...{ train, heldOut },
    rollout,
    // RULER compares the rollouts of a group; in an evaluation there is one, and the metric decides.
    score: (groups, { mode, signal }) => (mode === "eval" ? groups : scoreByRuler(groups, signal)),
    async warmUp(model, { settings: { sft, turns, mustCall }, seed, signal }) {
      if (sft === 0) return false;
      const how = { mostTurns: turns, held: mustCall, signal };
      const shown = await demonstrations(server, train.slice(0, sft), how);
      const rate = { learningRate: 5e-3, schedule: { type: "linear", end: 0.1 } } as const;
      await model.sft(shown, { ...rate, epochs: 4, batchSize: 8, warmupSteps: 2, seed, signal });
      return true;
    },
    metric: "done",
    slice: ({ difficulty }) => difficulty,
    settings: { turns: 6, judge: "", mustCall: false, sft: 0 },
    checkSettings({ turns, judge, sft }) {
      if (!Number.isInteger(turns) || turns < 1) {
        throw new Error(`--turns is a whole number of at least 1, not ${turns}.`);
      }
      const written = train.filter(({ calls }) => calls !== undefined).length;
      if (!Number.isInteger(sft) || sft < 0 || sft > written) {
        throw new Error(
          `--sft is a number of transcripts from 0 to ${written}, the scenarios for training that were made of schemas, not ${sft}.`,
        );
      }
      if (judge === "" && scenarios.some(({ calls }) => calls === undefined)) {
        throw new Error(
          "Scenarios that a model wrote need a model as their judge, such as --judge openai/o4-mini: the program that judges offline reads only those that were made of schemas.",
        );
      }
    },
    options: {
      ...{ steps: 20, groupsPerStep: 4, groupSize: 8, answerTokens: 256 },
      // Each rollout has a process of its own beside it.
      ...{ concurrency: 16, verdict: "sampled" },
    },
    curves: () => ({ heldOut: ["failedCalls"] }),
  });
}

/** `done` is what the scenario asked for and calls without an error did, as a share. The judge is not told of it. */
export function episodeMetrics(
  { calls, tools }: Pick<Scenario, "calls" | "tools">,
  episode: Episode,
): Record<string, number> {
  const left = episode.calls.filter(({ failed }) => !failed);
  const wanted = calls ?? tools.map((tool) => ({ tool, arguments: null }));
  let done = 0;
  for (const want of wanted) {
    const at = left.findIndex(
      (made) =>
        made.tool === want.tool &&
        (want.arguments === null || same(made.arguments, want.arguments)),
    );
    if (at < 0) continue;
    left.splice(at, 1);
    done += 1;
  }
  return {
    done: wanted.length === 0 ? 0 : done / wanted.length,
    calls: episode.calls.length,
    failedCalls: episode.calls.filter(({ failed }) => failed).length,
    completed: episode.summary === null ? 0 : 1,
    turns: episode.turns,
    tokens: episode.tokens,
  };
}

/** By the judge that the rollouts name; where they name none, by the program that follows the rubric. */
export async function scoreByRuler(
  groups: TrajectoryGroup[],
  signal: AbortSignal,
): Promise<TrajectoryGroup[]> {
  const judges = groups.map(({ trajectories }) => trajectories[0]?.metadata["judge"] ?? "");
  const program = judges.includes("")
    ? await ScriptedJudge.start({ otherwise: score(followTheRubric) })
    : null;
  try {
    return await Promise.all(
      groups.map((group, at) => {
        const judge = judges[at];
        const named = typeof judge === "string" && judge !== "";
        // The program's answers cost nothing, and its address is another each time.
        return named || program === null
          ? rulerScoreGroup(group, String(judge), { rubric: mcpRubric, signal })
          : rulerScoreGroup(group, program.endpoint, { rubric: mcpRubric, cache: false, signal });
      }),
    );
  } finally {
    await program?.close();
  }
}
