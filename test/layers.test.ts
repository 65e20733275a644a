// The walls of the codebase: who may import whom. These tables are the documentation, and its only place.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it, onTestFinished } from "vitest";
import { circles, importsBelow, neighbourEdges, reachableFrom } from "./support/import-graph.ts";
import type { Import } from "./support/import-graph.ts";
import { pythonImports } from "./support/python-imports.ts";

/** Which of our packages a package may import, and which of its files may import what only Node has. */
const packages: Record<string, { ours: string[]; node: RegExp }> = {
  core: { ours: [], node: /\.test\.ts$/ },
  transport: { ours: ["core"], node: /^(folder-)?node\.ts$|\.test(-support)?\.ts$/ },
  client: { ours: ["core", "transport"], node: /./ },
  ruler: {
    ours: ["core", "transport"],
    node: /-node\.ts$|^cli\.ts$|^cli\/|^testing\/|^rewards\/syntax-thread\.ts$|\.test\.ts$/,
  },
  recipes: { ours: ["core", "client", "ruler"], node: /./ },
  server: { ours: ["core", "transport"], node: /./ },
};

/** The rooms of packages/server/src, and what each kind of them may import beside its own kind. */
const serverRooms: Record<Kind, { rooms: string[]; mayImport: Kind[] }> = {
  // Plain data and functions, the ports among them: they know nobody.
  values: { rooms: ["ports", "conversation", "step-data", "faults"], mayImport: [] },
  // What the rest stands on.
  database: { rooms: ["store"], mayImport: ["values"] },
  http: { rooms: ["http"], mayImport: ["values", "database"] },
  // What is installed on this machine, and where: Python, its packages, bases.
  setup: { rooms: ["setup"], mayImport: [] },
  // What Hone is, each with its routes. What is not Node they reach through ports.
  services: {
    rooms: ["ledger", "policies", "rollouts", "operations", "retention", "models"],
    mayImport: ["values", "database", "http"],
  },
  // Completions, in the agents' dialects, and Tinker's API. The services are ports to them.
  gateway: { rooms: ["gateway", "tinker"], mayImport: ["values", "http"] },
  // The other side of the ports: children and engines, in their protocols.
  adapters: {
    rooms: ["engines", "renderer", "scoring", "trainer", "supervise"],
    mayImport: ["values", "database", "http", "setup"],
  },
  // What puts all this together: these rooms, and the files beside the rooms (server.ts, compose.ts, …).
  composition: {
    rooms: ["cli", "openapi", "in-force"],
    mayImport: ["values", "database", "http", "setup", "services", "gateway", "adapters"],
  },
};
type Kind =
  | "values"
  | "database"
  | "http"
  | "setup"
  | "services"
  | "gateway"
  | "adapters"
  | "composition";

/** What the worker's rooms never import, and what no file may reach that the entry of a process leads to. */
const worker = {
  strangers: [
    ["engine", "train"],
    ["train", "engine"],
  ],
  without: [{ entry: "hone_worker.renderer", module: "torch" }],
};

/** What stands today and is being mended. An entry that is no longer needed fails the test, too. */
const stillStanding: string[] = [];

it("the walls stand, all over the repository", () => {
  const root = fileURLToPath(new URL("..", import.meta.url));
  expect(breaches(root)).toEqual(stillStanding.toSorted());
  // What is looked for is looked at.
  expect([...pythonImports(root).keys()]).toEqual(
    expect.arrayContaining(worker.without.map(({ entry }) => entry)),
  );
});

/** A line for each breach in the repository at `root`. */
function breaches(root: string): string[] {
  const imports = importsBelow(root, "packages");
  const broken = [...imports, ...importsBelow(root, "examples")].flatMap((one) =>
    wallsBrokenBy(one).map((wall) => `${one.from} → ${one.to ?? one.specifier}: ${wall}`),
  );
  const product = imports.filter(({ from }) => !isTest(from));
  const loops = circles(neighbourEdges(product, "packages"));
  return [...new Set([...broken, ...loops.map(loopLine), ...workerBreaches(root)])].toSorted();
}

function wallsBrokenBy({ from, to, specifier }: Import): string[] {
  const broken: string[] = [];
  const target = to ? packageOf(to) : /^@hone\/(\w+)/.exec(specifier)?.[1];
  if (from.startsWith("examples/")) {
    const inside = to?.startsWith("packages/") || target === "server";
    return inside ? ["an example imports what its reader can install"] : [];
  }
  const own = packageOf(from) ?? "";
  const rules = packages[own];
  if (!rules) return [`packages/${own} has no row in the table`];
  if (target && target !== own && !rules.ours.includes(target)) {
    broken.push(`${own} imports ${named(rules.ours)} of our packages`);
  }
  if (isBuiltin(specifier) && !rules.node.test(from.replace(`packages/${own}/src/`, ""))) {
    broken.push("this file also runs where there is no Node");
  }
  const isOfTests = specifier === "vitest" || (to !== null && isTest(to));
  if (isOfTests && !isTest(from)) broken.push("product code imports no tests");
  if (specifier === "vitest" && from.startsWith("packages/ruler/src/testing/")) {
    broken.push("what is published needs no vitest");
  }
  if (own === "server" && target === "server" && to && !isTest(from)) {
    const [here, there] = [kindOf(from), kindOf(to)];
    const rooms = serverRooms[here ?? "composition"];
    if (!here || (!there && !isTest(to))) broken.push("a room has no row in the table");
    else if (there && here !== there && !rooms.mayImport.includes(there)) {
      broken.push(`${here} import ${named(rooms.mayImport)} beside their own kind`);
    }
  }
  return broken;
}

const loopLine = (circle: readonly string[]): string => `${circle.join(", ")}: a circle of imports`;
const named = (names: readonly string[]): string => names.join(", ") || "none";
const packageOf = (file: string): string | undefined => /^packages\/([^/]+)\//.exec(file)?.[1];
const isTest = (file: string): boolean =>
  /\.(test|test-d|test-support)\.ts$|\/testing\//.test(file);

function kindOf(file: string): Kind | undefined {
  const [room, inside] = file.replace("packages/server/src/", "").split("/");
  if (!room || inside === undefined) return "composition";
  return (Object.keys(serverRooms) as Kind[]).find((kind) =>
    serverRooms[kind].rooms.includes(room),
  );
}

function workerBreaches(root: string): string[] {
  const imports = pythonImports(root);
  const edges = [...imports].flatMap(([from, all]) => all.map((to) => [from, to] as const));
  const strange = edges
    .filter(([from, to]) =>
      worker.strangers.some(
        ([here, there]) =>
          from.startsWith(`hone_worker.${here}.`) && to.startsWith(`hone_worker.${there}.`),
      ),
    )
    .map(([from, to]) => `${from} → ${to}: these rooms know nothing of each other`);
  const heavy = worker.without.flatMap(({ entry, module }) =>
    [...reachableFrom(entry, imports), entry]
      .filter((file) => imports.get(file)?.some((to) => to.split(".")[0] === module))
      .map((file) => `${file} → ${module}: ${entry} leads here, and runs without it`),
  );
  const files = edges.map(([from, to]) => ({
    from: from.replaceAll(".", "/"),
    specifier: to,
    to: to.replaceAll(".", "/"),
  }));
  const loops = circles(neighbourEdges(files, "hone_worker"));
  return [...strange, ...heavy, ...loops.map(loopLine)];
}

it.each<[wall: string, files: Record<string, string>, breach: RegExp]>([
  [
    "core imports another package",
    { "packages/core/src/a.ts": 'import type { Hone } from "@hone/client";' },
    /core imports none/,
  ],
  [
    "core imports Node",
    { "packages/core/src/a.ts": 'import { join } from "node:path";' },
    /no Node/,
  ],
  [
    "the client imports the server",
    { "packages/client/src/a.ts": 'export { startServer } from "@hone/server";' },
    /client imports core, transport/,
  ],
  [
    "the client imports the server's sources",
    { "packages/client/src/a.ts": 'await import("../../server/src/state.ts");' },
    /client imports core, transport/,
  ],
  [
    "ruler imports the client, in a test",
    { "packages/ruler/src/a.test.ts": 'import { gather } from "@hone/client";' },
    /ruler imports core, transport/,
  ],
  [
    "ruler imports Node where browsers run it",
    { "packages/ruler/src/judge/a.ts": 'import "node:fs";' },
    /no Node/,
  ],
  [
    "a package is new",
    { "packages/fresh/src/a.ts": 'import "@hone/core";' },
    /packages\/fresh has no row/,
  ],
  [
    "an example reaches into a package",
    { "examples/2048/src/a.ts": 'import "../../../packages/core/src/ids.ts";' },
    /can install/,
  ],
  [
    "a service imports an adapter, for a type",
    { "packages/server/src/operations/a.ts": 'let a: import("../trainer/client.ts").Client;' },
    /services import values/,
  ],
  [
    "the gateway imports a service",
    { "packages/server/src/gateway/a.ts": 'import type { L } from "../ledger/ledger.ts";' },
    /gateway import values, http/,
  ],
  [
    "the gateway imports the database",
    { "packages/server/src/gateway/chat/a.ts": 'import "../../store/store.ts";' },
    /gateway import values, http/,
  ],
  [
    "a port imports what is behind it",
    { "packages/server/src/ports/a.ts": 'import type { S } from "../store/store.ts";' },
    /values import none/,
  ],
  [
    "an adapter imports a service",
    { "packages/server/src/engines/a.ts": 'import "../policies/live.ts";' },
    /adapters import values/,
  ],
  [
    "a room imports what puts the rooms together",
    { "packages/server/src/policies/a.ts": 'import type { State } from "../state.ts";' },
    /services import values/,
  ],
  [
    "a room is new",
    { "packages/server/src/cellar/a.ts": 'import "../http/json.ts";' },
    /room has no row/,
  ],
  [
    "two folders import each other",
    {
      "packages/server/src/policies/a.ts": 'import type { B } from "../rollouts/b.ts";',
      "packages/server/src/rollouts/c.ts": 'export * from "../policies/d.ts";',
    },
    /src\/policies, packages\/server\/src\/rollouts: a circle/,
  ],
  [
    "two files import each other's types",
    {
      "packages/ruler/src/a.ts": 'import type { B } from "./b.ts";',
      "packages/ruler/src/b.ts": 'import { type A } from "./a.ts";',
    },
    /ruler\/src\/a.ts, packages\/ruler\/src\/b.ts: a circle/,
  ],
  [
    "a file imports itself over a condition of package.json",
    {
      "packages/ruler/package.json":
        '{"imports": {"#parse": {"node": "./dist/b.js", "@hone/source": "./src/b.ts"}}}',
      "packages/ruler/src/a.ts": 'import { b } from "#parse";',
      "packages/ruler/src/b.ts": 'import "./a.ts";',
    },
    /a circle/,
  ],
  [
    "product code imports a testing room",
    { "packages/server/src/policies/a.ts": 'import "../testing/fixtures.ts";' },
    /imports no tests/,
  ],
  [
    "product code imports vitest",
    { "packages/client/src/a.ts": 'import { expect } from "vitest";' },
    /imports no tests/,
  ],
  [
    "the published testing room imports vitest",
    { "packages/ruler/src/testing/a.ts": 'import { expect } from "vitest";' },
    /needs no vitest/,
  ],
  [
    "the worker's trainer imports its engine",
    {
      "packages/server/worker/hone_worker/train/a.py": "from hone_worker.engine import b",
      "packages/server/worker/hone_worker/engine/b.py": "",
    },
    /train.a → hone_worker.engine.b: these rooms/,
  ],
  [
    "the renderer leads to torch",
    {
      "packages/server/worker/hone_worker/renderer.py": "from hone_worker.render import a",
      "packages/server/worker/hone_worker/render/a.py": "def f():\n    import torch.nn",
    },
    /render.a → torch: hone_worker.renderer leads here/,
  ],
  [
    "two rooms of the worker import each other",
    {
      "packages/server/worker/hone_worker/base/a.py": "from hone_worker.score import b",
      "packages/server/worker/hone_worker/score/b.py": "",
      "packages/server/worker/hone_worker/score/c.py": "from ..base.a import d",
    },
    /hone_worker\/base, hone_worker\/score: a circle/,
  ],
  [
    "modules of the worker import each other",
    {
      "packages/server/worker/hone_worker/a.py": "from .b import c",
      "packages/server/worker/hone_worker/b.py": "import hone_worker.a",
    },
    /a circle/,
  ],
])("a breach is found: %s", (_, files, breach) => {
  const root = mkdtempSync(join(tmpdir(), "hone-walls-"));
  onTestFinished(() => rmSync(root, { recursive: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  expect(breaches(root)).toEqual([expect.stringMatching(breach)]);
});
