import { parse } from "py-ast";
import type { ParsedCode } from "./parsed-code.ts";
import { tokenProblem } from "./python-lines.ts";
import { scopeProblem } from "./python-scopes.ts";

/** Parses Python 3 and names what it imports. */
export function parsePython(code: string): ParsedCode {
  try {
    const module = parse(code);
    const problem = tokenProblem(code) ?? treeProblem(module) ?? scopeProblem(module);
    if (problem !== null) return { ok: false, problem };
    return { ok: true, ...readModule(module, code.split("\n")) };
  } catch (error) {
    // Also a RangeError: code that is nested deeper than the stack.
    if (error instanceof Error) return { ok: false, problem: error.message };
    throw error;
  }
}

interface SomeNode {
  nodeType?: string;
  handlers?: unknown[];
  finalbody?: unknown[];
  target?: SomeNode;
  names?: { name: string }[];
  module?: string | null;
  level?: number;
  func?: SomeNode;
  id?: string;
  attr?: string;
  value?: unknown;
  end_lineno?: number;
  end_col_offset?: number;
}

/** These do something; whatever else a line is made of, words are made of too. */
const deeds =
  /^(?:(?:Async)?FunctionDef|ClassDef|Import|ImportFrom|Assign|AugAssign|NamedExpr|If|While|(?:Async)?For|(?:Async)?With|Match|Try|TryStar|Lambda|Assert)$/;
/** Whoever has one of these has every module. */
const loaders = new Set(["__import__", "import_module", "importlib"]);

/**
 * `import a.b` names a.b; `from a.b import c` names a.b and a.b.c, as c may be a module. A mention of what imports by
 * name has the name "*": any module.
 */
function readModule(
  module: unknown,
  lines: readonly string[],
): { imports: string[]; wordsOnly: boolean } {
  const imports: string[] = [];
  let wordsOnly = true;
  const open: unknown[] = [module];
  while (open.length > 0) {
    const node = open.pop();
    if (typeof node !== "object" || node === null) continue;
    open.push(...Object.values(node));
    const found = node as SomeNode;
    imports.push(...importsBy(found));
    wordsOnly &&= !isDeed(found, lines);
  }
  return { imports, wordsOnly };
}

/** What Python refuses and the parser builds all the same. */
function treeProblem(module: unknown): string | null {
  const open: unknown[] = [module];
  while (open.length > 0) {
    const node = open.pop();
    if (typeof node !== "object" || node === null) continue;
    open.push(...Object.values(node));
    const { nodeType = "", handlers, finalbody, target } = node as SomeNode;
    if (/^Try(?:Star)?$/.test(nodeType) && !handlers?.length && !finalbody?.length) {
      return "a try without except or finally";
    }
    const kind = target?.nodeType ?? "";
    if (/^(?:(?:Async)?For|comprehension)$/i.test(nodeType) && kind === "Constant") {
      return "a loop over a literal";
    }
    if (nodeType === "AnnAssign" && /^(?:Tuple|List)$/.test(kind)) return "an annotated tuple";
  }
  return null;
}

function importsBy(node: SomeNode): string[] {
  const { nodeType, names = [], module: from, level = 0, id = "", attr = "", value } = node;
  const imports: string[] = [];
  if (nodeType === "Import") imports.push(...names.map(({ name }) => name));
  if (nodeType === "ImportFrom") {
    const base = ".".repeat(level) + (from ?? "");
    imports.push(base, ...names.map(({ name }) => (from ? `${base}.${name}` : base + name)));
  }
  // As a text: getattr(builtins, "__import__").
  const text = nodeType === "Constant" && typeof value === "string" ? value : "";
  const loads =
    [id, attr, text].some((name) => loaders.has(name)) ||
    imports.some((name) => name.split(".").some((part) => loaders.has(part)));
  return loads ? [...imports, "*"] : imports;
}

function isDeed(node: SomeNode, lines: readonly string[]): boolean {
  const { nodeType = "", value, func } = node;
  // "Answer: 42" is an annotation.
  if (nodeType === "AnnAssign") return Boolean(value);
  // Words have a space before a parenthesis.
  if (nodeType === "Call") {
    const behind = lines[(func?.end_lineno ?? 0) - 1]?.[func?.end_col_offset ?? 0] ?? "";
    return /[()]/.test(behind);
  }
  return deeds.test(nodeType);
}
