import type { ChatMessage, ChatTool } from "@hone/core";
import { debugText } from "./debug-text.ts";
import type { Judge } from "../judge/judge-target.ts";
import { JudgeError } from "../judge/judge-error.ts";
import { judgeMembers } from "./judging.ts";
import type { JudgedMembers } from "./judgement.ts";
import { judgeOptionNames, resolveSettings } from "./settings.ts";
import type { JudgeOptions } from "./settings.ts";

export interface RulerOptions extends JudgeOptions {
  /** The tools that all conversations had. */
  tools?: readonly ChatTool[] | undefined;
}

/**
 * Scores bare conversations against one another. `scores` has their order. An entry is null if nothing was
 * compared, because all are the same or there is only one. Throws a JudgeError if the judge fails.
 */
export async function ruler(
  messageLists: readonly (readonly ChatMessage[])[],
  judge: Judge,
  options: RulerOptions = {},
): Promise<JudgedMembers> {
  const { tools = null, ...judgeOptions } = options;
  const settings = await resolveSettings("ruler()", judge, judgeOptions, [
    ...judgeOptionNames,
    "tools",
  ]);
  const judged = await judgeMembers(
    "conversations",
    messageLists.map((messages) => ({ messages, tools })),
    settings,
  );
  settings.debug?.(debugText({ id: "conversations" }, judged));
  const { status, error } = judged.judgement;
  if (status !== "failed") return judged;
  throw error ?? new JudgeError("The judge gave no scores.", { failure: "invalid_answer" });
}
