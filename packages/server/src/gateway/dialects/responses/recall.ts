import {
  HoneError,
  messageText,
  type AssistantMessage,
  type ChatMessage,
  type ResponsesItem,
  type ResponsesOutputItem,
  type ResponsesRequest,
} from "@hone/core";
import { answerIdOf } from "../../../conversation/response-id.ts";
import type { LedgerCompletion } from "../../../ports/ledger.ts";

type Earlier = readonly LedgerCompletion[] | null;
export type GivenItem = Exclude<ResponsesItem, { type: "item_reference" }>;
type ItemType = ResponsesOutputItem["type"];

const prefixes: Record<ItemType, string> = { message: "msg", reasoning: "rs", function_call: "fc" };

/**
 * The id of an answer, in which stands what the ledger does not know of its request and a later one needs: whether its
 * first message were the `instructions` (`i`), and whether it was asked with `store: false` (`u`, unstored).
 */
export function responseIdOf(
  answerId: string,
  { instructions, store }: Pick<ResponsesRequest, "instructions" | "store">,
): string {
  const marks = `${instructions ? "i" : ""}${store === false ? "u" : ""}`;
  return `resp_${bare(answerId)}${marks && `_${marks}`}`;
}

/** The id of an item: of the answer, which of its kind it is, and whether the answer was asked with `store: false`. */
export function itemIdOf(
  answerId: string,
  { store }: Pick<ResponsesRequest, "store">,
  type: ItemType,
  nth: number,
): string {
  return `${prefixes[type]}_${bare(answerId)}_${nth}${store === false ? "_u" : ""}`;
}

/** The answer that an item is of, where its id is one of ours. */
export function ownerOf({ id }: GivenItem): string | null {
  return typeof id === "string" ? (/^[a-z]+_([0-9a-f]{24})_\d{1,4}$/.exec(id)?.[1] ?? null) : null;
}

/** The conversation up to an answer and with it, without the instructions of that request. */
export function recallAnswer(
  earlier: Earlier,
  responseId: string,
): { id: string; messages: readonly ChatMessage[] } {
  const param = "previous_response_id";
  if (earlier === null) throw outside(param);
  const [, marks = ""] = /_([iu]+)$/.exec(responseId) ?? [];
  if (marks.includes("u")) throw unstored(param, responseId);
  const found = completionOf(earlier, answerIdOf(responseId));
  if (!found)
    throw unknown(param, `there is no answer "${responseId.slice(0, 80)}" in this rollout`);
  const asked = marks.includes("i") ? found.messages.slice(1) : found.messages;
  return { id: found.id, messages: [...asked, found.answer] };
}

/** The item of an answer that has this id. */
export function recallItem(
  earlier: Earlier,
  itemId: string,
  param: string,
): { id: string; item: GivenItem } {
  if (earlier === null) throw outside(param);
  const [, prefix, own, nth, mark] = /^([a-z]+)_([0-9a-f]{24})_(\d{1,4})(_u)?$/.exec(itemId) ?? [];
  if (mark) throw unstored(param, itemId);
  const found = own === undefined ? undefined : completionOf(earlier, `cmpl_${own}`);
  const item = found && itemOf(found.answer as AssistantMessage, prefix, Number(nth));
  if (item) return { id: found.id, item: { ...item, id: itemId } };
  throw unknown(param, `no answer of this rollout has an item "${itemId.slice(0, 80)}"`);
}

/** Text and thoughts are one item each, whatever a stream made of them. */
function itemOf(
  { tool_calls: calls, reasoning_content: thought, ...answer }: AssistantMessage,
  prefix: string | undefined,
  nth: number,
): GivenItem | null {
  const call = calls?.[nth];
  if (prefix === prefixes.function_call && call) {
    const { name, arguments: given } = call.function;
    return { type: "function_call", call_id: call.id, name, arguments: given };
  }
  if (nth > 0) return null;
  if (prefix === prefixes.message) return { role: "assistant", content: messageText(answer) };
  if (prefix !== prefixes.reasoning || !thought) return null;
  return { type: "reasoning", content: [{ text: thought }] };
}

function completionOf(
  earlier: readonly LedgerCompletion[],
  answerId: string,
): LedgerCompletion | undefined {
  return earlier.find(({ id, kind }) => kind === "chat" && id === answerId);
}

function bare(answerId: string): string {
  return answerId.replace(/^cmpl_/, "");
}

function unstored(param: string, id: string): HoneError {
  return unknown(param, `"${id.slice(0, 80)}" was asked with "store": false. Leave that out there`);
}

function outside(param: string): HoneError {
  return unknown(
    param,
    "answers are kept within a rollout only. Ask below the base URL of a rollout",
  );
}

function unknown(param: string, what: string): HoneError {
  return new HoneError(`${param}: ${what}, or send the items so far as input.`, {
    code: "previous_response_not_found",
    param,
  });
}
