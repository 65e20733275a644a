/*
 * What Python's compiler refuses in a tree that its grammar allows: a `return` outside of a function, a name twice
 * among the parameters, an assignment to what is no place. One walk over the tree, with no recursion.
 */

interface PythonNode {
  nodeType?: string;
  lineno?: number;
  col_offset?: number;
  [field: string]: unknown;
}

interface Scope {
  kind: "module" | "class" | "def" | "async" | "lambda" | "generator";
  outer: Scope | null;
  params: Set<string>;
  bound: Set<string>;
  /** Where each name stands first. */
  seen: Map<string, number>;
  declared: { word: "global" | "nonlocal"; name: string; at: number }[];
  yields: boolean;
  returnsValue: boolean;
}

interface Place {
  scope: Scope;
  inLoop: boolean;
  inComprehension: boolean;
}

const futures = new Set([
  ...["nested_scopes", "generators", "division", "absolute_import", "with_statement"],
  ...["print_function", "unicode_literals", "barry_as_FLUFL", "generator_stop", "annotations"],
]);

/** The first thing that is wrong, in no certain order; null where nothing is. */
export function scopeProblem(module: unknown): string | null {
  const scopes: Scope[] = [];
  const newScope = (kind: Scope["kind"], outer: Scope | null): Scope => {
    const scope: Scope = {
      ...{ kind, outer, params: new Set(), bound: new Set(), seen: new Map(), declared: [] },
      ...{ yields: false, returnsValue: false },
    };
    scopes.push(scope);
    return scope;
  };
  const top: Place = { scope: newScope("module", null), inLoop: false, inComprehension: false };
  const open: [unknown, Place][] = [[module, top]];
  for (let next = open.pop(); next; next = open.pop()) {
    const [node, place] = next;
    if (Array.isArray(node)) for (const part of node as unknown[]) open.push([part, place]);
    if (!isNode(node)) continue;
    const problem = problemOf(node, place);
    if (problem !== null) return problem;
    noteNames(node, place);
    openParts(node, place, open, newScope);
  }
  for (const scope of scopes) {
    const problem = scopeEndProblem(scope);
    if (problem !== null) return problem;
  }
  return futureProblem(module);
}

function isNode(value: unknown): value is PythonNode {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function list(value: unknown): PythonNode[] {
  return Array.isArray(value) ? (value as PythonNode[]) : [];
}

/** Puts what is within a node on the stack, each part with where it stands. */
function openParts(
  node: PythonNode,
  place: Place,
  open: [unknown, Place][],
  newScope: (kind: Scope["kind"], outer: Scope) => Scope,
): void {
  const { nodeType = "", body, orelse, ...rest } = node;
  const { scope } = place;
  const within = (kind: Scope["kind"]): Place => ({
    scope: newScope(kind, scope),
    inLoop: false,
    inComprehension: false,
  });
  if (/^(?:Async)?FunctionDef$|^Lambda$/.test(nodeType)) {
    const kind = nodeType === "Lambda" ? "lambda" : nodeType === "FunctionDef" ? "def" : "async";
    const inner = within(kind);
    for (const { arg } of paramsOf(node.args)) {
      inner.scope.params.add(String(arg));
      inner.scope.bound.add(String(arg));
    }
    open.push([body, inner]);
  } else if (nodeType === "ClassDef") {
    open.push([body, within("class")]);
  } else if (/^(?:(?:Async)?For|While)$/.test(nodeType)) {
    open.push([body, { ...place, inLoop: true }], [orelse, place]);
  } else if (/^(?:ListComp|SetComp|DictComp|GeneratorExp)$/.test(nodeType)) {
    const inner = nodeType === "GeneratorExp" ? within("generator") : place;
    const comprehension = { ...inner, inComprehension: true };
    const [first, ...others] = list(node["generators"]);
    // The first iterable is evaluated outside.
    const { iter, ...firstRest } = first ?? {};
    open.push([iter, place], [firstRest, comprehension], [others, comprehension]);
    for (const part of ["elt", "key", "value"]) open.push([node[part], comprehension]);
    return;
  } else {
    open.push([body, place], [orelse, place]);
  }
  open.push([Object.values(rest), place]);
}

function paramsOf(args: unknown): PythonNode[] {
  if (!isNode(args)) return [];
  const { posonlyargs, args: plain, vararg, kwonlyargs, kwarg } = args;
  const others = [vararg, kwarg].filter(isNode);
  return [...list(posonlyargs), ...list(plain), ...list(kwonlyargs), ...others];
}

function noteNames(node: PythonNode, { scope, inComprehension }: Place): void {
  const { nodeType = "", id, name, names, asname, ctx } = node;
  const at = (node.lineno ?? 0) * 1e6 + (node.col_offset ?? 0);
  const note = (text: string, binds: boolean): void => {
    if (!scope.seen.has(text) || (scope.seen.get(text) as number) > at) scope.seen.set(text, at);
    if (binds) scope.bound.add(text);
  };
  if (nodeType === "Global" || nodeType === "Nonlocal") {
    const word = nodeType === "Global" ? "global" : "nonlocal";
    for (const one of names as string[]) scope.declared.push({ word, name: one, at });
  } else if (nodeType === "Name" && !inComprehension && scope.kind !== "generator") {
    note(String(id), (ctx as PythonNode | undefined)?.nodeType !== "Load");
  } else if (nodeType === "Alias" && name !== "*") {
    // Python lets an import stand before `global`.
    const own = typeof asname === "string" ? asname : String(name).split(".")[0];
    scope.bound.add(own ?? "");
  } else if (
    typeof name === "string" &&
    /^(?:FunctionDef|AsyncFunctionDef|ClassDef|ExceptHandler|MatchAs|MatchStar)$/.test(nodeType)
  ) {
    note(name, true);
  }
}

function problemOf(node: PythonNode, place: Place): string | null {
  const { nodeType = "", target, targets, value } = node;
  const { scope, inLoop, inComprehension } = place;
  const isFunction = scope.kind === "def" || scope.kind === "async" || scope.kind === "lambda";
  const mayAwait = scope.kind === "async" || scope.kind === "generator";
  switch (nodeType) {
    case "Return":
      if (scope.kind !== "def" && scope.kind !== "async") return "'return' outside function";
      if (value) scope.returnsValue = true;
      return null;
    case "Yield":
    case "YieldFrom":
      if (inComprehension) return "'yield' inside a comprehension";
      if (!isFunction) return "'yield' outside function";
      if (nodeType === "YieldFrom" && scope.kind === "async") {
        return "'yield from' inside async function";
      }
      scope.yields = true;
      return null;
    case "Await":
    case "AsyncFor":
    case "AsyncWith":
      return mayAwait ? null : "await, async for or async with outside async function";
    case "ListComp":
    case "SetComp":
    case "DictComp":
    case "GeneratorExp": {
      if (isStarred(node["elt"])) return "iterable unpacking in a comprehension";
      const isAsync = list(node["generators"]).some(({ is_async }) => Boolean(is_async));
      const isLazy = nodeType === "GeneratorExp";
      return isAsync && !isLazy && !mayAwait
        ? "asynchronous comprehension outside async function"
        : null;
    }
    case "Break":
    case "Continue":
      return inLoop ? null : `'${nodeType.toLowerCase()}' outside loop`;
    case "FunctionDef":
    case "AsyncFunctionDef":
    case "Lambda":
      return twice(paramsOf(node.args).map(({ arg }) => arg)) ? "duplicate argument" : null;
    case "Call":
    case "ClassDef":
      return twice(list(node["keywords"]).flatMap(({ arg }) => arg ?? []))
        ? "keyword argument repeated"
        : null;
    case "ImportFrom":
      if (scope.kind === "module") return null;
      return node["module"] === "__future__" || list(node["names"]).some(({ name }) => name === "*")
        ? "this import is only allowed at module level"
        : null;
    case "NamedExpr":
      return isNode(target) && target.nodeType === "Name" ? null : "':=' assigns to names only";
    case "For":
    case "Comprehension":
    case "Assign":
    case "Delete":
      for (const one of [target, ...list(targets)].filter(isNode)) {
        if (one.nodeType === "Starred" || !isTarget(one, nodeType !== "Delete")) {
          return "cannot assign to this, or delete it";
        }
      }
      return nodeType === "Assign" && isStarred(value) ? "a starred value stands alone" : null;
    case "Expr":
    case "AnnAssign":
    case "AugAssign":
    case "FormattedValue":
      return isStarred(value) ? "a starred value stands alone" : null;
    case "Name":
    case "Attribute":
      return (node["id"] ?? node["attr"]) === "__debug__" &&
        (node["ctx"] as PythonNode | undefined)?.nodeType !== "Load"
        ? "cannot assign to __debug__"
        : null;
    default:
      return null;
  }
}

function isStarred(value: unknown): boolean {
  return isNode(value) && value.nodeType === "Starred";
}

/** Names, attributes, items, and lists of them with at most one star each. */
function isTarget(target: PythonNode, mayStar: boolean): boolean {
  const open = [target];
  for (let one = open.pop(); one; one = open.pop()) {
    const { nodeType = "", elts, value } = one;
    if (nodeType === "Tuple" || nodeType === "List") {
      if (list(elts).filter(isStarred).length > (mayStar ? 1 : 0)) return false;
      open.push(...list(elts));
    } else if (nodeType === "Starred" && isNode(value)) open.push(value);
    else if (!/^(?:Name|Attribute|Subscript)$/.test(nodeType)) return false;
  }
  return true;
}

function twice(names: readonly unknown[]): boolean {
  return new Set(names).size < names.length;
}

function scopeEndProblem(scope: Scope): string | null {
  if (scope.kind === "async" && scope.yields && scope.returnsValue) {
    return "'return' with value in async generator";
  }
  for (const { word, name, at } of scope.declared) {
    if (scope.params.has(name)) return `name '${name}' is parameter and ${word}`;
    if ((scope.seen.get(name) ?? at) < at) return `name '${name}' is used prior to ${word}`;
    if (word === "global") {
      const other = scope.declared.some((one) => one.name === name && one.word !== word);
      if (other) return `name '${name}' is nonlocal and global`;
    } else if (scope.kind === "module" || !isBoundOutside(name, scope.outer)) {
      return `no binding for nonlocal '${name}' found`;
    }
  }
  return null;
}

function isBoundOutside(name: string, from: Scope | null): boolean {
  for (let scope = from; scope; scope = scope.outer) {
    if (scope.kind === "module" || scope.kind === "class") continue;
    const isGlobal = scope.declared.some((one) => one.name === name && one.word === "global");
    if (!isGlobal && scope.bound.has(name)) return true;
  }
  return false;
}

/** `from __future__` comes first, behind a text that documents the module. */
function futureProblem(module: unknown): string | null {
  let isFirst = true;
  for (const [index, node] of list((module as PythonNode)["body"]).entries()) {
    const { nodeType, module: from, value } = node;
    if (nodeType === "ImportFrom" && from === "__future__" && !node["level"]) {
      if (!isFirst) return "from __future__ imports must occur at the beginning of the file";
      const unknown = list(node["names"]).some(({ name }) => !futures.has(String(name)));
      if (unknown) return "future feature is not defined";
      continue;
    }
    const text = isNode(value) && value.nodeType === "Constant" ? value["value"] : null;
    isFirst &&= index === 0 && nodeType === "Expr" && typeof text === "string";
  }
  return null;
}
