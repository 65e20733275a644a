import { parse } from "@babel/parser";
import type { ParserPlugin } from "@babel/parser";
import type { ParsedCode } from "./parsed-code.ts";

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
    return { ok: true, ...readProgram(file.program, code) };
  } catch (error) {
    // A RangeError: code that is nested deeper than the stack.
    if (error instanceof SyntaxError || error instanceof RangeError) {
      return { ok: false, problem: error.message };
    }
    throw error;
  }
}

/** These do something; whatever else an expression is made of, words are made of too. */
const deeds =
  /^(?:(?:Function|Class|Export\w*|Import|TS\w+)Declaration|(?:Assignment|Update|ArrowFunction|Function|Class)Expression|(?:If|For|ForIn|ForOf|While|DoWhile|Switch|Try|Return)Statement|JSX(?:Element|Fragment))$/;
/** Whoever has one of these has every module. */
const loaders = new Set(["createRequire", "getBuiltinModule"]);
/** What may be asked of `require` without loading anything. */
const harmless = new Set(["main", "resolve"]);

/**
 * Static imports, re-exports, `import()`, `require()` and `import x = require()`, wherever they stand; "*" for any
 * other use of `require`, and for a mention of what makes one.
 */
function readProgram(program: unknown, code: string): { imports: string[]; wordsOnly: boolean } {
  const imports: string[] = [];
  let wordsOnly = true;
  const open: unknown[] = [program];
  while (open.length > 0) {
    const node = open.pop();
    if (typeof node !== "object" || node === null) continue;
    if (Array.isArray(node)) {
      open.push(...(node as unknown[]));
      continue;
    }
    const found = node as SomeNode;
    imports.push(...importsBy(found));
    wordsOnly &&= !isDeed(found, code);
    open.push(...partsOf(found));
  }
  return { imports, wordsOnly };
}

function importsBy(node: SomeNode): string[] {
  const { type = "", source, expression } = node;
  if (/^(Import|Export)/.test(type) && source) return [textOf(source)];
  if (type === "TSExternalModuleReference") return [textOf(expression)];
  if (isCall(node)) {
    const callee = bare(node.callee);
    const loads = callee?.type === "Import" || isRequire(callee);
    return loads ? [textOf(node.arguments?.[0])] : [];
  }
  if (type === "MemberExpression" || type === "OptionalMemberExpression") {
    const name = memberName(node);
    return name === "require" || loaders.has(name) ? ["*"] : [];
  }
  if (type === "ObjectProperty") return loaders.has(keyName(node)) ? ["*"] : [];
  if (type === "ObjectPattern") {
    return node.properties?.some((one) => keyName(one) === "require") ? ["*"] : [];
  }
  // Those that are called, or asked for something harmless, never come here: see partsOf.
  const isLoader = type === "Identifier" && (isRequire(node) || loaders.has(node.name ?? ""));
  return isLoader ? ["*"] : [];
}

/** What is within a node, without what is a name and no use of it. */
function partsOf(node: SomeNode): unknown[] {
  const rest: Partial<SomeNode> = { ...node };
  if (isCall(node) && isRequire(bare(node.callee))) delete rest.callee;
  if (node.property && !node.computed) {
    delete rest.property;
    if (isRequire(bare(node.object)) && harmless.has(memberName(node))) delete rest.object;
  }
  if (node.key && !node.computed) delete rest.key;
  if (node.label) delete rest.label;
  return Object.values(rest);
}

function isDeed(node: SomeNode, code: string): boolean {
  const { type = "" } = node;
  if (type === "VariableDeclaration") {
    // "let go" is no code.
    return node.declarations?.some(({ init }) => Boolean(init)) ?? false;
  }
  // Words have a space before a parenthesis.
  if (isCall(node)) return /[(<?)]/.test(code[node.callee?.end ?? 0] ?? "");
  return deeds.test(type);
}

function isCall({ type }: SomeNode): boolean {
  return type === "CallExpression" || type === "OptionalCallExpression" || type === "NewExpression";
}

function isRequire(node: SomeNode | undefined): boolean {
  return node?.type === "Identifier" && node.name === "require";
}

/** Without what TypeScript says about an expression: `require!`, `require as any`. */
function bare(node: SomeNode | undefined): SomeNode | undefined {
  let inner = node;
  while (inner?.expression && /^TS\w+Expression$/.test(inner.type ?? "")) inner = inner.expression;
  return inner;
}

function memberName({ property, computed }: SomeNode): string {
  return computed ? textOf(property) : (property?.name ?? "");
}

function keyName({ key, computed }: SomeNode): string {
  return key?.type === "Identifier" && !computed ? (key.name ?? "") : textOf(key);
}

interface SomeNode {
  type?: string;
  name?: string;
  value?: unknown;
  end?: number;
  computed?: boolean;
  source?: SomeNode | null;
  callee?: SomeNode;
  expression?: SomeNode;
  object?: SomeNode;
  property?: SomeNode;
  key?: SomeNode;
  label?: SomeNode;
  arguments?: SomeNode[];
  properties?: SomeNode[];
  declarations?: { init?: unknown }[];
  quasis?: { value: { cooked?: string } }[];
  expressions?: unknown[];
}

/** A module that is named by a computation may be any module: it has the name "*". */
function textOf(node: SomeNode | undefined): string {
  if (node?.type === "StringLiteral") return String(node.value);
  const isPlain = node?.type === "TemplateLiteral" && node.expressions?.length === 0;
  return isPlain ? (node.quasis?.[0]?.value.cooked ?? "*") : "*";
}
