import {
  type ChatMessage,
  type CompletionRecord,
  completionListSchema,
  printableBlock,
} from "@hone/core";
import type { Connection } from "./connection.ts";
import { fields, number, printJson, table, time } from "./print.ts";

/** A rollout as it went: what was new in each request, and what the model answered. */
export async function inspectRollout(
  connection: Connection,
  id: string,
  flags: { json?: boolean | undefined; tokens?: boolean | undefined },
): Promise<void> {
  const path = `/v1/rollouts/${encodeURIComponent(id)}/completions`;
  const { rollout, data } = await connection.get(completionListSchema, path);
  if (flags.json) {
    printJson({ rollout, completions: data });
    return;
  }
  const metrics = Object.entries(rollout.metrics).map(
    ([name, value]) => `${name} ${number(value)}`,
  );
  console.log(
    fields([
      ["rollout", rollout.id],
      ["model", rollout.policy ?? rollout.model],
      ["mode", rollout.mode],
      ["group", rollout.group ?? "–"],
      ["status", rollout.error ? `${rollout.status}: ${rollout.error.message}` : rollout.status],
      ["reward", number(rollout.reward)],
      ["metrics", metrics.join(", ") || "–"],
      ["trained by", rollout.trainedBy ?? "–"],
      ["created", time(rollout.createdAt)],
    ]),
  );
  const byId = new Map(data.map((completion) => [completion.id, completion]));
  for (const completion of data) {
    const parent = completion.parentId === null ? undefined : byId.get(completion.parentId);
    console.log(`\n${headline(completion)}`);
    // The parent's messages and its answer were shown with it.
    const shown = parent ? parent.messages.length + 1 : 0;
    for (const message of completion.messages.slice(shown)) console.log(messageText(message));
    console.log(messageText(completion.answer));
    if (flags.tokens) console.log(tokenTable(completion));
  }
}

function headline(completion: CompletionRecord): string {
  const { seq, policy, promptIds, sampledIds, logprobs, finishReason, temperature, choices } =
    completion;
  const mean = logprobs.reduce((total, value) => total + value, 0) / Math.max(1, logprobs.length);
  const parts = [
    `── ${seq}`,
    policy,
    completion.parentId === null ? "new conversation" : "continues",
    `${promptIds.length} prompt + ${sampledIds.length} sampled ids`,
    `mean logprob ${number(mean)}`,
    `temperature ${temperature}`,
    finishReason,
  ];
  if (choices > 1) parts.push(`choice ${completion.choice + 1} of ${choices}`);
  if (completion.splitReason !== null) parts.push(`split: ${completion.splitReason}`);
  if (!completion.delivered) parts.push("not received: does not train");
  return parts.join(" · ");
}

function messageText(message: ChatMessage): string {
  const given = message as {
    content?: unknown;
    reasoning_content?: unknown;
    tool_calls?: { function?: { name?: unknown; arguments?: unknown } }[] | undefined;
  };
  const parts: string[] = [];
  if (typeof given.reasoning_content === "string") parts.push(`(${given.reasoning_content})`);
  if (typeof given.content === "string") parts.push(given.content);
  else if (given.content !== null && given.content !== undefined)
    parts.push(JSON.stringify(given.content));
  for (const call of given.tool_calls ?? []) {
    parts.push(`→ ${String(call.function?.name)}(${String(call.function?.arguments)})`);
  }
  return `${message.role}: ${printableBlock(parts.join("\n"), "  ")}`;
}

function tokenTable({ sampledIds, logprobs, tokens }: CompletionRecord): string {
  return table(
    [{ title: "ID", right: true }, { title: "LOGPROB", right: true }, { title: "TOKEN" }],
    sampledIds.map((id, i) => [
      String(id),
      (logprobs[i] ?? 0).toFixed(4),
      tokens ? JSON.stringify(tokens[i]) : "?",
    ]),
  );
}
