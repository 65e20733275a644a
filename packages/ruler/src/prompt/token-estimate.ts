/**
 * About how many tokens a text is, on the safe side: 3.5 ASCII characters each, and one for every
 * other UTF-16 unit. A judge's own tokenizer may be given instead.
 */
export function estimateTokens(text: string): number {
  let ascii = 0;
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) < 128) ascii += 1;
  }
  return Math.ceil(ascii / 3.5) + (text.length - ascii);
}
