import type { ChatTool } from "@hone/core";
import type { ChatAsk } from "../ask.ts";
import { refusal } from "./openai.ts";

/** What a request says of calls, in whatever words its dialect has for it. */
export interface CallWish {
  tools: readonly ChatTool[] | null;
  choice: "auto" | "none" | "required";
  /** Only these of the tools may be called; null: all of them. */
  only: readonly string[] | null;
  /** One call at most. */
  single: boolean;
  /** The request's field with the choice: errors name it. */
  param: string;
}

/** Who may be called, and whether somebody has to be. The prompt shows all tools, whoever may be called. */
export function readCalls(
  wish: CallWish,
): Pick<ChatAsk, "tools" | "callable" | "mustCall" | "oneCall"> {
  const { tools, choice, only, single, param } = wish;
  if (!tools) {
    if (choice !== "required") return { tools, callable: null };
    throw refusal(param, "a call has to be, and there are no tools. Send tools, or leave it out.");
  }
  if (choice === "none") return { tools, callable: null };
  const unknown = only?.find((name) => tools.every((tool) => tool.function.name !== name));
  if (unknown !== undefined) {
    throw refusal(param, `there is no tool "${unknown.slice(0, 100)}". Name one of tools.`);
  }
  const callable = only ? tools.filter((tool) => only.includes(tool.function.name)) : tools;
  if (callable.length === 0) {
    throw refusal(param, 'it names no tool. Name some, or send "none".');
  }
  if (choice === "auto" && callable.length < tools.length) {
    throw refusal(
      param,
      'fewer tools than those of the prompt are held only where a call has to be: send the mode "required", ' +
        "or send only these tools.",
    );
  }
  return {
    tools,
    callable,
    ...(choice === "required" && { mustCall: true }),
    ...(single && { oneCall: true }),
  };
}
