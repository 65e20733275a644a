import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { Game } from "./game.ts";
import { firstTurn, nextTurn, readMove } from "./prompt.ts";
import { StyleCount } from "./styles.ts";

export interface Scenario {
  seed: number;
}

export interface GameSettings {
  size: number;
  target: number;
  /** Tokens that a conversation may have; null where only the model's API knows. */
  contextTokens: number | null;
  /** An answer is a word and an end; a model that rambles is cut off and refused. */
  answerTokens: number;
}

/** Makes the rollout: one whole game, played as one conversation. */
export function createRollout({ size, target, contextTokens, answerTokens }: GameSettings) {
  return async function playGame(model: RolloutModel, { seed }: Scenario) {
    const connection = model.connection();
    const client = new OpenAI(connection);
    const game = new Game({ size, target, seed });
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: "user", content: firstTurn(game) },
    ];
    const style = new StyleCount();
    let malformed = 0;
    let used = 0;
    let longestTurn = 0;
    // Another turn has to fit, with its answer and room for the note of a refused one.
    const fits = () =>
      contextTokens === null || used + 2 * longestTurn + answerTokens <= contextTokens;
    while (!game.over && fits()) {
      const completion = await client.chat.completions.create(
        moveRequest(connection.model, messages, answerTokens),
        { signal: model.signal },
      );
      const message = completion.choices[0]?.message;
      if (!message) throw new Error("The completion has no choice.");
      const total = completion.usage?.total_tokens ?? 0;
      // The first turn holds the rules too.
      if (messages.length > 1) longestTurn = Math.max(longestTurn, total - used);
      used = total;

      const move = readMove(message.content ?? "");
      if (move === null) malformed += 1;
      else style.add(game, move);
      game.play(move);
      messages.push(message, { role: "user", content: nextTurn(game) });
    }
    return {
      reward: Math.log(game.score + 1),
      metrics: {
        score: game.score,
        moves: game.moves,
        best: game.best,
        won: game.won ? 1 : 0,
        refused: game.refusedInAll,
        malformed,
        cut: game.over ? 0 : 1,
        ...style.metrics(),
      },
      metadata: { seed, answerTokens },
    };
  };
}

/** Asks for a move. Models that think before they answer refuse `max_tokens`, and our own server takes both. */
export function moveRequest(
  model: string,
  messages: OpenAI.ChatCompletionMessageParam[],
  answerTokens: number,
): OpenAI.ChatCompletionCreateParamsNonStreaming {
  return { model, messages, max_completion_tokens: answerTokens, temperature: 1 };
}
