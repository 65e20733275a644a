import { parse } from "@babel/parser";
import type { ParserPlugin } from "@babel/parser";
import type { ParsedCode } from "./code-reward.ts";

/** Parses TypeScript or JavaScript as a module, or as a script where it is none. */
export function parseTypeScript(
  code: string,
  language: "typescript" | "tsx" | "javascript",
): ParsedCode {
  const plugins: ParserPlugin[] = [
    ...(language === "typescript" ? [] : ["jsx" as const]),
    ...(language === "javascript" ? [] : ["typescript" as const]),
    "explicitResourceManagement",
    "importAttributes",
  ];
  try {
    const file = parse(code, { sourceType: "unambiguous", plugins, attachComment: false });
    return { ok: true, imports: importsOf(file.program) };
  } catch (error) {
    // A RangeError: code that is nested deeper than the stack.
    if (error instanceof SyntaxError || error instanceof RangeError) {
      return { ok: false, problem: error.message };
    }
    throw error;
  }
}

/** Static imports, re-exports, `import()`, `require()` and `import x = require()`, wherever they stand. */
function importsOf(program: unknown): string[] {
  const found: string[] = [];
  const open: unknown[] = [program];
  while (open.length > 0) {
    const node = open.pop();
    if (Array.isArray(node)) open.push(...(node as unknown[]));
    if (typeof node !== "object" || node === null || Array.isArray(node)) continue;
    const { type: name = "", source, callee, expression } = node as SomeNode;
    if (/^(Import|Export)/.test(name) && source) found.push(textOf(source));
    const called = callee?.type === "Import" || callee?.name === "require";
    if (name === "CallExpression" && called) {
      found.push(textOf((node as SomeNode).arguments?.[0]));
    }
    if (name === "TSExternalModuleReference") found.push(textOf(expression));
    open.push(...Object.values(node));
  }
  return found;
}

interface SomeNode {
  type?: string;
  source?: Node | null;
  callee?: Node;
  expression?: Node;
  arguments?: Node[];
}

interface Node {
  type?: string;
  name?: string;
  value?: unknown;
  quasis?: { value: { cooked?: string } }[];
  expressions?: unknown[];
}

/** A module that is named by a computation may be any module: it has the name "*". */
function textOf(node: Node | undefined): string {
  if (node?.type === "StringLiteral") return String(node.value);
  const isPlain = node?.type === "TemplateLiteral" && node.expressions?.length === 0;
  return isPlain ? (node.quasis?.[0]?.value.cooked ?? "*") : "*";
}
