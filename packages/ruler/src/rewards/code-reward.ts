import { codeBlocks, hasFence } from "../code-fence.ts";
import { completionText } from "./completion-text.ts";
import { parsePython } from "./python-syntax.ts";
import { named } from "./reward-function.ts";
import type { RewardFunction } from "./reward-function.ts";
import { parseTypeScript } from "./typescript-syntax.ts";

export type CodeLanguage = "typescript" | "tsx" | "javascript" | "python";

/** What a parser found, or that it is no such code. */
export type ParsedCode =
  | {
      ok: true;
      /** The modules that the code imports; "*" where that may be any. */
      imports: string[];
      /**
       * Nothing but names, texts, numbers and operators: `Sorry, no` parses, and so does an answer in backticks,
       * which JavaScript takes for a template.
       */
      wordsOnly: boolean;
    }
  | { ok: false; problem: string };

export interface CodeOptions {
  language: CodeLanguage;
  /** Modules that the code may not import; `os` stands for `os.path` too, `node:fs` for `node:fs/promises`. */
  forbiddenImports?: readonly string[] | undefined;
  /**
   * The code in the answer. @default its last fenced block that names the language, else its last that names none,
   * else, where nothing is fenced, all of it. Without a name for it, mere words are no code.
   */
  extract?: ((text: string) => string | null) | undefined;
}

const fenceNames: Readonly<Record<CodeLanguage, readonly string[]>> = {
  typescript: ["ts", "typescript", "mts", "cts"],
  tsx: ["tsx", "typescriptreact"],
  javascript: [
    ...["js", "javascript", "mjs", "cjs", "jsx", "javascriptreact"],
    ...["node", "nodejs", "node.js", "ecmascript", "es6"],
  ],
  python: ["py", "python", "python3", "py3"],
};
/** Longer code is refused unread. */
const longest = 200_000;

/**
 * 1 where the answer holds code that a parser of the language accepts, without a forbidden import;
 * else 0. The code is read and never run.
 */
export function codeParses(options: CodeOptions): RewardFunction {
  const { language, forbiddenImports = [] } = options;
  return named("code_parses", (trajectory) => {
    const text = completionText(trajectory);
    const found = options.extract
      ? { code: options.extract(text), named: true }
      : codeIn(text, fenceNames[language]);
    if (!found?.code?.trim()) return 0;
    const parsed = parseCode(found.code, language);
    if (!parsed.ok || (parsed.wordsOnly && !found.named)) return 0;
    return parsed.imports.some((name) => isForbidden(name, forbiddenImports)) ? 0 : 1;
  });
}

/** `named`: whether the answer says itself that this is code of the language. */
function codeIn(text: string, names: readonly string[]): { code: string; named: boolean } | null {
  const blocks = codeBlocks(text);
  const last = blocks.findLast(({ language }) => names.includes(language));
  if (last) return { code: last.code, named: true };
  const unnamed = blocks.findLast(({ language }) => language === "");
  if (unnamed) return { code: unnamed.code, named: false };
  // With another language's block in it, or half a block, all of it is not this language either.
  return hasFence(text) ? null : { code: text, named: false };
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
