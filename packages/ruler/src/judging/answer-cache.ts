import { z } from "zod";
import { sha256 } from "../prompt/fence-keys.ts";
import type { JudgeMessage, JudgeReply } from "../judge/judge-reply.ts";
import type { Settings } from "./settings.ts";

const storedSchema = z.object({
  content: z.string(),
  reasoning: z.string().nullable(),
  model: z.string(),
});

/** The answer that this judge gave to this very prompt with these parameters; null where there is none. */
export async function cachedAnswer(
  messages: readonly JudgeMessage[],
  settings: Settings,
): Promise<JudgeReply | null> {
  if (!settings.answers) return null;
  const stored = await settings.answers.get(await keyOf(messages, settings));
  if (stored === null) return null;
  try {
    const parsed = storedSchema.parse(JSON.parse(stored));
    return {
      ...parsed,
      refusal: null,
      finishReason: "stop",
      usage: { promptTokens: 0, cachedTokens: 0, completionTokens: 0 },
      costUsd: 0,
    };
  } catch {
    // A file that was cut or changed: the judge is asked.
    return null;
  }
}

/** Keeps an answer that held. A disk that cannot be written costs the next call, not this one. */
export async function rememberAnswer(
  messages: readonly JudgeMessage[],
  reply: JudgeReply,
  settings: Settings,
): Promise<void> {
  if (!settings.answers || reply.content === null) return;
  const { content, reasoning, model } = reply;
  const stored = JSON.stringify({ content, reasoning, model });
  await settings.answers.set(await keyOf(messages, settings), stored).catch(() => undefined);
}

async function keyOf(messages: readonly JudgeMessage[], settings: Settings): Promise<string> {
  const { target, parameters, structuredOutput } = settings;
  return await sha256(
    JSON.stringify([target.baseURL, target.model, parameters, structuredOutput, messages]),
  );
}
