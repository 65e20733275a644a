import type { Rollout } from "@hone/client";
import OpenAI from "openai";

/** Enough for the seconds in which a killed server or worker comes back. */
const maxRetries = 12;

/**
 * An agent of three turns. Its reward follows from what the model said, so that rewards differ; `received`
 * gets the texts as they arrive.
 */
export function playChat(received: string[]): Rollout<{ word: string }> {
  return async (model, { word }) => {
    const connection = model.connection();
    const client = new OpenAI({ ...connection, maxRetries });
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: "user", content: `Say something about ${word}.` },
    ];
    let letters = 0;
    for (let turn = 0; turn < 3; turn++) {
      const { choices } = await client.chat.completions.create(
        { model: connection.model, messages, max_tokens: 96 },
        { signal: model.signal },
      );
      const message = choices[0]?.message;
      if (!message) throw new Error("The completion has no choice.");
      received.push(message.content ?? "");
      letters += (message.content ?? "").match(/[aeiou]/g)?.length ?? 0;
      messages.push(message, { role: "user", content: "Go on." });
    }
    return { reward: letters };
  };
}
