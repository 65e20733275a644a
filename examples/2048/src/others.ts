import { HoneError } from "@hone/client";
import type { TrajectoryGroup } from "@hone/client";
import OpenAI from "openai";
import { Game } from "./game.ts";
import { firstTurn } from "./prompt.ts";
import type { OtherModel } from "./providers.ts";
import { moveRequest } from "./rollout.ts";

/**
 * Asks each model for one move: a wrong key, a wrong name or an answer that has no room is to be known before
 * the hours of training, not after them.
 */
export async function checkOthers(
  others: readonly OtherModel[],
  board: { size: number; target: number },
  signal: AbortSignal,
): Promise<void> {
  const game = new Game({ ...board, seed: 0 });
  await Promise.all(others.map((other) => checkOther(other, firstTurn(game), signal)));
}

async function checkOther(
  { label, model, answerTokens }: OtherModel,
  content: string,
  signal: AbortSignal,
): Promise<void> {
  const { baseURL, apiKey, fetch, name } = model;
  const client = new OpenAI({ baseURL, apiKey, fetch, timeout: 120_000 });
  const request = moveRequest(name, [{ role: "user", content }], answerTokens);
  let completion: OpenAI.ChatCompletion;
  try {
    completion = await client.chat.completions.create(request, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw refusal(label, messageOf(error), error);
  }
  const [choice] = completion.choices ?? [];
  if (!choice) throw refusal(label, "its answer is no chat completion", null);
  if (!choice.message.content?.trim() && choice.finish_reason === "length") {
    const why = `${answerTokens} tokens were used up before its answer began; --compare-tokens gives it more`;
    throw refusal(label, why, null);
  }
}

function refusal(label: string, why: string, cause: unknown): HoneError {
  return new HoneError(`${label} cannot be compared with: ${why}. Nothing has been trained yet.`, {
    code: "invalid_config",
    param: "compare",
    cause,
  });
}

/** What the other models made of the verdict's games; of those that failed, why. */
export interface OthersPlayed {
  evaluations: Record<string, TrajectoryGroup[]>;
  failures: Record<string, string>;
}

/** A model that fails takes nothing from the verdict nor from the others. */
export async function playOthers(
  others: readonly OtherModel[],
  play: (other: OtherModel) => Promise<TrajectoryGroup[]>,
  signal: AbortSignal,
): Promise<OthersPlayed> {
  const played: OthersPlayed = { evaluations: {}, failures: {} };
  for (const other of others) {
    try {
      played.evaluations[other.label] = await play(other);
    } catch (error) {
      if (signal.aborted) throw error;
      played.failures[other.label] = messageOf(error);
    }
  }
  return played;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
