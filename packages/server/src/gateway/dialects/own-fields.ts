import { HoneError } from "@hone/core";

/** What a dialect calls a field, by what a chat calls it. */
export type OwnFields = readonly (readonly [inChats: RegExp, own: string])[];

export const responsesFields: OwnFields = [
  [/\bresponse_format\.json_schema\.schema\b/g, "text.format.schema"],
  [/\bresponse_format\b/g, "text.format"],
  [/\btools\[(\d+)\]\.function\.parameters\b/g, "tools[$1].parameters"],
  // As a `param` alone. Which item a message was made of is not known any more.
  [/^messages(\[\S*)?$/g, "input"],
];

export const messagesFields: OwnFields = [
  [/\bresponse_format\.json_schema\.schema\b/g, "output_config.format.schema"],
  [/\bresponse_format\b/g, "output_config.format"],
  [/\btools\[(\d+)\]\.function\.parameters\b/g, "tools[$1].input_schema"],
  [/\bparallel_tool_calls\b/g, "tool_choice.disable_parallel_tool_use"],
  [/`stop`/g, "`stop_sequences`"],
];

/**
 * An error in the dialect's own words. What comes after a request was read (renderer, engine, grammars) knows no
 * dialects, and names the fields of a chat.
 */
export function inOwnWords(error: unknown, fields: OwnFields): unknown {
  if (!HoneError.isInstance(error) || fields.length === 0) return error;
  const own = (text: string) =>
    fields.reduce((said, [chat, name]) => said.replace(chat, name), text);
  const { code, status, retryAfterMs } = error;
  const message = own(error.message);
  const param = error.param && own(error.param);
  if (message === error.message && param === error.param) return error;
  return new HoneError(message, {
    ...{ code, param: param ?? undefined, status, cause: error },
    ...(retryAfterMs !== null && { retryAfterMs }),
  });
}
