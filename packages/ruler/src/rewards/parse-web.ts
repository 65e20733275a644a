import { parseHere } from "./parse-here.ts";
import type { CodeLanguage, ParsedCode } from "./parsed-code.ts";

/** Where there are no threads of Node's: a page that scores what it does not trust does so in a worker of its own. */
export function parse(code: string, language: CodeLanguage): Promise<ParsedCode> {
  return Promise.resolve(parseHere(code, language));
}
