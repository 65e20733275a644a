/**
 * What a renderer or a reader could take for something else than text: line ends and control
 * characters that JSON leaves as they are, marks that turn the direction of writing, and whatever is
 * not seen at all (joiners, soft hyphens, variation selectors, tags).
 */
const unseen = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/**
 * Where a control token of a chat template may begin: a server that tokenises the prompt as one text
 * would take it for the end of the message. By shape, since each family has names of its own: almost
 * all begin with `<` and no space. The rest: `[|…|]`, `[UPPER_CASE]`, header ids, `[e~[`, `]~b]`,
 * `]<]…[>[`, `>>UPPER<<`. Escaped they mean the same to JSON and nothing to a tokenizer.
 */
const controlTokens =
  /<(?![\s\d=<>-])|[[\]](?=~|[a-z!]{1,2}~|<\]|>\[)|\[(?=\||\/?[a-z]{0,2}[A-Z][A-Z_]+\d*\]|(?:start_header|end_header|extra|control|unused)_?(?:id|\d+|id_\d+)\])|>(?=>[A-Z_]{2,}<<)/g;

/** A value as one line of JSON that nothing in it can leave: no line end, no control token. */
export function dataLine(value: unknown): string {
  return withoutControl(JSON.stringify(value).replace(unseen, escapeUnits));
}

/** Text, or JSON, with the begin of each control token written as JSON escapes it. */
export function withoutControl(text: string): string {
  return text.replace(controlTokens, escapeUnits);
}

function escapeUnits(text: string): string {
  let escaped = "";
  for (let index = 0; index < text.length; index += 1) {
    escaped += `\\u${text.charCodeAt(index).toString(16).padStart(4, "0")}`;
  }
  return escaped;
}
