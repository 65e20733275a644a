import type { CodeLanguage, ParsedCode } from "./parsed-code.ts";
import { parsePython } from "./python-syntax.ts";
import { parseTypeScript } from "./typescript-syntax.ts";

/** Parses in this thread, however long that takes. */
export function parseHere(code: string, language: CodeLanguage): ParsedCode {
  return language === "python" ? parsePython(code) : parseTypeScript(code, language);
}
