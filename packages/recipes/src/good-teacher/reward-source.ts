import { readFile } from "node:fs/promises";
import { HoneError, type ChatMessage } from "@hone/core";
import { z } from "zod";
import type { ExaminedJudge } from "../doctor/judge.ts";
import { namedJudge, type JudgeNames } from "../doctor/judges.ts";
import { coinOf } from "../self-judge/coin.ts";
import { parsedRow } from "./preferences.ts";

/** What a policy is trained by. */
export interface RewardSource {
  /** `gold`, the ground truth; a file of the stage `reward-model`; or a judge by its name, as of the doctor. */
  reward: string;
  /** Multiplies the scores of a share of the prompts, before they are normalised. @default 1 */
  scale?: number | undefined;
  /** The share of the prompts, by a coin for each. @default 1 */
  scaleShare?: number | undefined;
  scaleSeed?: number | undefined;
}

export const trainedSchema = z.object({
  model: z.string(),
  policy: z.string(),
  onPolicyShare: z.number(),
  pairs: z.int(),
});

export const isGold = ({ reward }: RewardSource): boolean => reward === "gold";
const isFile = ({ reward }: RewardSource): boolean => reward.endsWith(".json");

/** The judge behind a source, and the share of on-policy pairs where a reward model's file says it. */
export async function judgeOf(
  source: RewardSource,
  names: JudgeNames,
): Promise<{ judge: ExaminedJudge | null; onPolicyShare: number | null }> {
  const { reward } = source;
  checkScale(source);
  if (isGold(source)) return { judge: null, onPolicyShare: null };
  if (!isFile(source)) return { judge: await namedJudge(reward, names), onPolicyShare: null };
  const trained = parsedRow(JSON.parse(await readFile(reward, "utf8")), reward, trainedSchema);
  const judge = await namedJudge(`rm:${trained.policy}`, names);
  return { judge, onPolicyShare: trained.onPolicyShare };
}

/** What a source's score of an answer to this prompt is multiplied by. */
export function scaleFor(source: RewardSource, prompt: readonly ChatMessage[]): number {
  const { scale = 1, scaleShare = 1, scaleSeed = 0 } = source;
  if (scale === 1 || coinOf(scaleSeed, prompt) >= scaleShare) return 1;
  return scale;
}

function checkScale({ scale = 1, scaleShare = 1 }: RewardSource): void {
  if (!(Number.isFinite(scale) && scale > 0)) {
    throw new HoneError(`A reward is scaled by a number above 0, not by ${scale}.`, {
      ...{ code: "invalid_config", param: "reward-scale" },
    });
  }
  if (scaleShare >= 0 && scaleShare <= 1) return;
  throw new HoneError(`A share of the prompts lies between 0 and 1; ${scaleShare} does not.`, {
    ...{ code: "invalid_config", param: "reward-scale-share" },
  });
}

/** As the stages note it: a file is known by its contents, which stand among the inputs. */
export function sourceOptions(source: RewardSource): Record<string, unknown> {
  const { reward, scale = 1, scaleShare = 1, scaleSeed = 0 } = source;
  return { reward: isFile(source) ? "file" : reward, scale, scaleShare, scaleSeed };
}

export function sourceInputs(source: RewardSource): Record<string, string> {
  return isFile(source) ? { reward: source.reward } : {};
}
