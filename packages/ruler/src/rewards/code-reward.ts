import { parse } from "#parse";
import { codeBlocks, hasFence } from "../code-fence.ts";
import { completionText } from "./completion-text.ts";
import type { CodeLanguage, ParsedCode } from "./parsed-code.ts";
import { named } from "./reward-function.ts";
import type { RewardFunction } from "./reward-function.ts";

export interface CodeOptions {
  language: CodeLanguage;
  /** Modules that the code may not import; `os` stands for `os.path` too, `node:fs` for `node:fs/promises`. */
  forbiddenImports?: readonly string[] | undefined;
  /**
   * Finds the code in the answer. @default the last fenced block that names the language, else the last that names
   * none, else the whole answer if nothing is fenced. Where nothing names the language, mere words are no code.
   */
  extract?: ((text: string) => string | null) | undefined;
}

const fenceNames: Readonly<Record<CodeLanguage, readonly string[]>> = {
  typescript: ["ts", "typescript", "mts", "cts"],
  tsx: ["tsx", "typescriptreact"],
  javascript: [
    ...["js", "javascript", "mjs", "cjs", "jsx", "javascriptreact"],
    ...["node", "nodejs", "node.js", "ecmascript", "es"],
  ],
  python: ["py", "python", "ipython", "cpython"],
};
/** Longer code is refused unread. */
const longest = 200_000;

/**
 * 1 if the answer holds code that a parser of the language accepts and that imports nothing forbidden, else 0. The
 * code is never run. It is parsed in another thread, with limits of time and memory.
 */
export function codeParses(options: CodeOptions): RewardFunction {
  return named("code_parses", async (trajectory) => {
    const judged = await judgeCode(completionText(trajectory), options);
    return judged === "fine" ? 1 : 0;
  });
}

/** `none`: there is no code; `forbidden`: it imports, or seems to import, what it may not. */
export async function judgeCode(
  text: string,
  { language, forbiddenImports = [], extract }: CodeOptions,
): Promise<"fine" | "broken" | "forbidden" | "none"> {
  const found = extract ? { code: extract(text), named: true } : codeIn(text, fenceNames[language]);
  if (!found?.code?.trim()) return "none";
  const parsed = await parseCode(found.code, language);
  if (!parsed.ok) return mentions(found.code, forbiddenImports) ? "forbidden" : "broken";
  if (parsed.wordsOnly && !found.named) return "none";
  return parsed.imports.some((name) => isForbidden(name, forbiddenImports)) ? "forbidden" : "fine";
}

/** Of code that does not parse its lines tell: an import that is begun counts. */
function mentions(code: string, forbidden: readonly string[]): boolean {
  return code.split("\n").some((line) => {
    const words = line.split(/[^\w./:@-]+/).filter(Boolean);
    const asks = words.some((word) => /^(?:import|from|require|__import__|importlib)$/.test(word));
    return asks && words.some((word) => isForbidden(word.replace(/^["']|["']$/g, ""), forbidden));
  });
}

/** python3.12, typescript@5, es2022 */
function withoutVersion(language: string): string {
  return language.replace(/[-@]?v?\d+(?:\.\d+)*$/, "") || language;
}

/** `named`: whether the answer says itself that this is code of the language. */
function codeIn(text: string, names: readonly string[]): { code: string; named: boolean } | null {
  const blocks = codeBlocks(text);
  const last = blocks.findLast(({ language }) => names.includes(withoutVersion(language)));
  if (last) return { code: last.code, named: true };
  const unnamed = blocks.findLast(({ language }) => language === "");
  if (unnamed) return { code: unnamed.code, named: false };
  // With another language's block in it, or half a block, all of it is not this language either.
  return hasFence(text) ? null : { code: text, named: false };
}

export async function parseCode(code: string, language: CodeLanguage): Promise<ParsedCode> {
  if (code.length > longest) return { ok: false, problem: "too long" };
  return await parse(code, language);
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
