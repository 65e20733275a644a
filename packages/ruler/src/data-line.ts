/**
 * Text that a renderer or a reader could take for something else than text: line ends that JSON
 * leaves as they are, marks that turn the direction of writing or are not seen at all.
 */
const unseen =
  /[\u0085\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]|[\u{e0000}-\u{e007f}]/gu;

/**
 * The control tokens of chat templates: a server that tokenises the prompt as one text would take
 * them for the end of the message. Escaped they mean the same to JSON and nothing to a tokenizer.
 */
const controlTokens =
  /<(?=[|｜]|<\/?SYS>|\/?(?:s|bos|eos|eot|pad|unk|sep|mask|start_of_turn|end_of_turn|start_of_image|end_of_utterance|fake_token_around_image|think|tool_call|tool_calls|tool_response|tools|unused\d+|reserved_\w+)>)|\[(?=\/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|IMG|PREFIX|MIDDLE|SUFFIX|gMASK|sMASK)\])/g;

/** A value as one line of JSON that nothing in it can leave: no line end, no control token. */
export function dataLine(value: unknown): string {
  return JSON.stringify(value).replace(unseen, escapeUnits).replace(controlTokens, escapeUnits);
}

function escapeUnits(text: string): string {
  let escaped = "";
  for (let index = 0; index < text.length; index += 1) {
    escaped += `\\u${text.charCodeAt(index).toString(16).padStart(4, "0")}`;
  }
  return escaped;
}
