import { parse } from "py-ast";
import type { ParsedCode } from "./code-reward.ts";

/** Parses Python 3 and names what it imports. */
export function parsePython(code: string): ParsedCode {
  try {
    return { ok: true, imports: importsOf(parse(code)) };
  } catch (error) {
    // Also a RangeError: code that is nested deeper than the stack.
    if (error instanceof Error) return { ok: false, problem: error.message };
    throw error;
  }
}

interface SomeNode {
  nodeType?: string;
  names?: { name: string }[];
  module?: string | null;
  level?: number;
  func?: SomeNode;
  args?: SomeNode[];
  id?: string;
  attr?: string;
  value?: unknown;
}

/** `import a.b` names a.b; `from a.b import c` names a.b and a.b.c, as c may be a module. */
function importsOf(module: unknown): string[] {
  const found: string[] = [];
  const open: unknown[] = [module];
  while (open.length > 0) {
    const node = open.pop();
    if (typeof node !== "object" || node === null) continue;
    open.push(...Object.values(node));
    const { nodeType, names = [], module: from, level = 0, func, args } = node as SomeNode;
    if (nodeType === "Import") found.push(...names.map(({ name }) => name));
    if (nodeType === "ImportFrom") {
      const base = ".".repeat(level) + (from ?? "");
      found.push(base, ...names.map(({ name }) => (from ? `${base}.${name}` : base + name)));
    }
    if (nodeType === "Call" && isDynamicImport(func)) found.push(textOf(args?.[0]));
  }
  return found;
}

function isDynamicImport(func: SomeNode | undefined): boolean {
  const name = func?.nodeType === "Attribute" ? func.attr : func?.id;
  return name === "__import__" || name === "import_module";
}

/** A module that is named by a computation may be any module: it has the name "*". */
function textOf(node: SomeNode | undefined): string {
  return node?.nodeType === "Constant" && typeof node.value === "string" ? node.value : "*";
}
