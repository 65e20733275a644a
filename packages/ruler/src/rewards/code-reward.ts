import { completionText, fencedCode } from "./completion-text.ts";
import { parsePython } from "./python-syntax.ts";
import { named } from "./reward-function.ts";
import type { RewardFunction } from "./reward-function.ts";
import { parseTypeScript } from "./typescript-syntax.ts";

export type CodeLanguage = "typescript" | "tsx" | "javascript" | "python";

/** What a parser found: the modules that the code imports, or that it is no such code. */
export type ParsedCode = { ok: true; imports: string[] } | { ok: false; problem: string };

export interface CodeOptions {
  language: CodeLanguage;
  /** Modules that the code may not import; `os` stands for `os.path` too, `node:fs` for `node:fs/promises`. */
  forbiddenImports?: readonly string[] | undefined;
  /** The code in the answer. @default its last fenced block in that language, else all of it */
  extract?: ((text: string) => string | null) | undefined;
}

const fenceNames: Readonly<Record<CodeLanguage, readonly string[]>> = {
  typescript: ["", "ts", "typescript", "mts", "cts"],
  tsx: ["", "tsx"],
  javascript: ["", "js", "javascript", "mjs", "cjs", "jsx"],
  python: ["", "py", "python", "python3"],
};
/** Longer code is refused unread. */
const longest = 200_000;

/**
 * 1 where the answer holds code that a parser of the language accepts, without a forbidden import;
 * else 0. The code is read and never run.
 */
export function codeParses(options: CodeOptions): RewardFunction {
  const { language, forbiddenImports = [] } = options;
  const extract =
    options.extract ?? ((text: string) => fencedCode(text, fenceNames[language]) ?? text);
  return named("code_parses", (trajectory) => {
    const code = extract(completionText(trajectory));
    if (!code?.trim()) return 0;
    const parsed = parseCode(code, language);
    if (!parsed.ok) return 0;
    return parsed.imports.some((name) => isForbidden(name, forbiddenImports)) ? 0 : 1;
  });
}

export function parseCode(code: string, language: CodeLanguage): ParsedCode {
  if (code.length > longest) return { ok: false, problem: "too long" };
  return language === "python" ? parsePython(code) : parseTypeScript(code, language);
}

function isForbidden(name: string, forbidden: readonly string[]): boolean {
  // Node's own modules have two names each; a module whose name is computed may be any.
  if (name === "*") return forbidden.length > 0;
  const bare = name.replace(/^node:/, "");
  return forbidden.some((module) => {
    const other = module.replace(/^node:/, "");
    return bare === other || bare.startsWith(`${other}.`) || bare.startsWith(`${other}/`);
  });
}
