import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { parseSync } from "oxc-parser";

export interface Import {
  /** The importing file, from the root of the repository. */
  from: string;
  /** As it is written, `./x.ts` or `@hone/core`. */
  specifier: string;
  /** The file that is meant, from the root; null where it lies in a package. */
  to: string | null;
}

/** Every import of the TypeScript files below `folder`, those of types and those made while running included. */
export function importsBelow(root: string, folder: string): Import[] {
  return sourcesBelow(join(root, folder)).flatMap((path) => {
    const from = relative(root, path);
    return specifiersOf(path).flatMap((specifier) =>
      targetsOf(root, path, specifier).map((to) => ({ from, specifier, to })),
    );
  });
}

function sourcesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory())
      return ["node_modules", "dist"].includes(entry.name) ? [] : sourcesBelow(path);
    return /\.m?ts$/.test(entry.name) ? [path] : [];
  });
}

function specifiersOf(path: string): string[] {
  const text = readFileSync(path, "utf8");
  const { module, errors } = parseSync(path, text);
  if (errors.length > 0) throw new Error(`${path}: ${errors[0]?.message}`);
  const reexported = module.staticExports.flatMap((one) => one.entries);
  // `import("…")`, of a value or of a type.
  const others = text.matchAll(/\bimport\(\s*"([^"]+)"/g);
  const all = [
    ...module.staticImports.map((one) => one.moduleRequest.value),
    ...reexported.flatMap((one) => one.moduleRequest?.value ?? []),
    ...[...others].flatMap((match) => match[1] ?? []),
  ];
  return [...new Set(all)];
}

/** More than one for what `imports` of package.json resolves by platform. */
function targetsOf(root: string, path: string, specifier: string): (string | null)[] {
  if (specifier.startsWith("."))
    return [relative(root, join(dirname(path), specifier)).replace(/\.js$/, ".ts")];
  if (!specifier.startsWith("#")) return [null];
  const folder = join(root, ...relative(root, path).split("/").slice(0, 2));
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest;
  return leavesOf(manifest.imports?.[specifier])
    .filter((leaf) => leaf.startsWith("./src/"))
    .map((leaf) => relative(root, join(folder, leaf)));
}

interface Manifest {
  imports?: Record<string, Conditions>;
}
type Conditions = string | { [condition: string]: Conditions };

function leavesOf(value: Conditions | undefined): string[] {
  if (value === undefined) return [];
  return typeof value === "string" ? [value] : Object.values(value).flatMap(leavesOf);
}

/** The groups of nodes that reach each other. */
export function circles(edges: Iterable<readonly [from: string, to: string]>): string[][] {
  const next = new Map<string, Set<string>>();
  for (const [from, to] of edges) next.set(from, (next.get(from) ?? new Set()).add(to));
  const reached = new Map([...next.keys()].map((node) => [node, reachableFrom(node, next)]));
  const found = new Map<string, string[]>();
  for (const [node, nodes] of reached) {
    if (!nodes.has(node)) continue;
    const circle = [...nodes].filter((other) => reached.get(other)?.has(node)).toSorted();
    found.set(circle.join(), circle);
  }
  return [...found.values()];
}

/** Whatever the imports of `start` lead to; `start` itself only in a circle. */
export function reachableFrom(
  start: string,
  next: ReadonlyMap<string, Iterable<string>>,
): Set<string> {
  const seen = new Set<string>();
  const waiting = [...(next.get(start) ?? [])];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    waiting.push(...(next.get(node) ?? []));
  }
  return seen;
}

/**
 * The imports between what lies side by side: for each folder below `top`, between its folders and files. A loop
 * among them means that neither can be read, or taken out, without the other.
 */
export function neighbourEdges(imports: readonly Import[], top: string): [string, string][] {
  return imports.flatMap(({ from, to }): [string, string][] => {
    if (to === null || !from.startsWith(`${top}/`) || !to.startsWith(`${top}/`)) return [];
    const [here, there] = [from.split("/"), to.split("/")];
    const shared = here.findIndex((part, index) => part !== there[index]);
    if (shared < 0) return [];
    return [[here.slice(0, shared + 1).join("/"), there.slice(0, shared + 1).join("/")]];
  });
}
