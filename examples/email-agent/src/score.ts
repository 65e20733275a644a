import type { TrajectoryGroup } from "@hone/client";
import { rulerScoreGroup, supportEmailRubric, type Judge } from "@hone/ruler";
import { score, ScriptedJudge } from "@hone/ruler/testing";
import { followTheRubric } from "./rubric-scorer.ts";

/**
 * RULER with the rubric for support mails, by the judge that the rollouts name in their metadata. Where they name none
 * it is the program that follows this rubric; groups without that entry have their reward already.
 */
export async function scoreByRuler(
  groups: TrajectoryGroup[],
  signal: AbortSignal,
): Promise<TrajectoryGroup[]> {
  const judges = groups.map(({ trajectories }) => trajectories[0]?.metadata["judge"]);
  const program = judges.includes("")
    ? await ScriptedJudge.start({ otherwise: score(followTheRubric) })
    : null;
  const by = (group: TrajectoryGroup, judge: Judge, cache: boolean) =>
    rulerScoreGroup(group, judge, { rubric: supportEmailRubric, cache, signal });
  try {
    return await Promise.all(
      groups.map(async (group, at) => {
        const judge = judges[at];
        if (typeof judge !== "string") return group;
        return program && judge === ""
          ? await by(group, program.endpoint, false)
          : await by(group, judge, true);
      }),
    );
  } finally {
    await program?.close();
  }
}
