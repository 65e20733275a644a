import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

function markdownOf(folder: string): string[] {
  return readdirSync(join(root, folder))
    .filter((name) => name.endsWith(".md") && name !== "CHANGELOG.md")
    .map((name) => join(folder, name));
}

const documents = [
  ...markdownOf("."),
  ...markdownOf("docs"),
  ...markdownOf("docs/decisions"),
  ...readdirSync(join(root, "packages"))
    .map((name) => join("packages", name, "README.md"))
    .filter((path) => existsSync(join(root, path))),
];

const read = (path: string) => readFileSync(join(root, path), "utf8");
const withoutFences = (text: string) => text.replaceAll(/^```[\s\S]*?^```/gm, "");

/** A heading's anchor, as GitHub and npm make it. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replaceAll(" ", "-");

function anchorsOf(path: string): string[] {
  const headings = withoutFences(read(path)).matchAll(/^#+ (.+)$/gm);
  return [...headings].map(([, heading]) => anchorOf(heading as string));
}

/** What a document names and is not there: targets of links, their anchors, and paths in code spans. */
function missingIn(document: string): string[] {
  const text = withoutFences(read(document));
  const missing: string[] = [];
  for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [path = "", anchor] = target.split("#");
    const file = path ? relative(root, resolve(root, dirname(document), path)) : document;
    if (!existsSync(join(root, file))) missing.push(target);
    else if (anchor !== undefined && !anchorsOf(file).includes(anchor)) missing.push(target);
  }
  const inCode =
    /`((?:packages|docs|scripts|test|bench|experiments|examples|models)\/[\w./@-]*)(?:#[\w-]+)?`/g;
  for (const [, path = ""] of text.matchAll(inCode)) {
    if (!existsSync(join(root, path))) missing.push(path);
  }
  return missing;
}

describe("what the documents name", () => {
  it.each(documents)("is where %s says", (document) => {
    expect(missingIn(document)).toEqual([]);
  });

  // What a stranger looks for first, and what stands in the file that has it.
  it.each([
    ["the loss", /importance_cap/],
    ["where a completion is recorded", /ledger\.append/],
    ["RULER's prompt", /You compare several attempts/],
    ["who may have the key", /HONE_API_KEY/],
    ["how a policy becomes served", /served/],
    ["where a new kind of operation goes", /Record<Op\["type"\], OperationKind>/],
    ["where a new dialect goes", /function dialect</],
    ["how a run's verdict is decided", /function decide\(/],
    ["what happens when the worker dies", /keepAlive/],
  ])("shows the way from the README to %s", (question, content) => {
    const row = read("README.md")
      .split("\n")
      .find((line) => line.startsWith(`| ${question} |`));
    const [, path = ""] = /\]\(([^)]+)\)/.exec(row ?? "") ?? [];
    expect(read(path)).toMatch(content);
  });
});
