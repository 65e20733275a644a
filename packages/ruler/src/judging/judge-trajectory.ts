import type { Trajectory } from "@hone/core";
import type { JudgeMessage, JudgeReply } from "../judge/judge-reply.ts";
import type { Settings } from "./settings.ts";

/** The judge's conversation as a trajectory, before its answer. */
export function newTrajectory(
  groupId: string,
  messages: readonly JudgeMessage[],
  settings: Settings,
): Trajectory {
  return {
    rolloutId: null,
    model: settings.target.model,
    policy: null,
    messages: [...messages],
    tools: null,
    histories: [],
    reward: null,
    metrics: {},
    metadata: { kind: "judge", judges: groupId, judge: settings.target.label },
    logs: [],
    usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
    startedAt: Date.now(),
    durationMs: 0,
  };
}

export function addReply(trajectory: Trajectory, reply: JudgeReply, settings?: Settings): void {
  trajectory.messages.push({
    role: "assistant",
    content: reply.content,
    ...(reply.reasoning ? { reasoning_content: reply.reasoning } : {}),
  });
  // What came from the cache cost nothing this time.
  if (!settings) return;
  if (settings.target.hone && reply.model) trajectory.policy = reply.model;
  trajectory.usage.completions += 1;
  trajectory.usage.promptTokens += reply.usage?.promptTokens ?? 0;
  trajectory.usage.completionTokens += reply.usage?.completionTokens ?? 0;
  const add = (name: string, value: number): void => {
    trajectory.metrics[name] = (trajectory.metrics[name] ?? 0) + value;
  };
  add("cached_tokens", reply.usage?.cachedTokens ?? 0);
}
