// Copies compiled code into the documents: after `<!-- snippet: path -->` or `<!-- snippet: path#region -->`
// comes a fenced block that must equal that file, or what stands between `// #region name` and `// #endregion`.
// `node scripts/snippets.mjs` writes, `--check` fails where a document is behind.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const check = process.argv.includes("--check");
const documents = [
  "README.md",
  "packages/ruler/README.md",
  ...readdirSync("docs")
    .filter((f) => f.endsWith(".md"))
    .map((f) => join("docs", f)),
];
let behind = 0;
let count = 0;

function source(reference) {
  const [path, region] = reference.split("#");
  const text = readFileSync(path, "utf8");
  if (!region) return text.trimEnd();
  const lines = text.split("\n");
  const from = lines.findIndex((l) => l.trim() === `// #region ${region}`);
  const to = lines.findIndex((l, i) => i > from && l.trim() === "// #endregion");
  if (from < 0 || to < 0) throw new Error(`${path} has no region "${region}".`);
  const body = lines.slice(from + 1, to);
  const indent = Math.min(
    ...body.filter((l) => l.trim()).map((l) => l.length - l.trimStart().length),
  );
  return body.map((l) => l.slice(indent)).join("\n");
}

for (const path of documents) {
  const text = readFileSync(path, "utf8");
  if ((text.match(/^```/gm)?.length ?? 0) % 2 > 0) {
    console.error(`${path} has a code block that does not end.`);
    process.exitCode = 1;
  }
  const next = text.replace(
    // A block may be empty yet: its end is the next one, and not that of another block.
    /(<!-- snippet: (\S+) -->\n```(?:ts|python)\n)(?:[\s\S]*?\n)??```/g,
    (_all, head, reference) => {
      count++;
      return `${head}${source(reference)}\n\`\`\``;
    },
  );
  if (next === text) continue;
  behind++;
  if (check) console.error(`${path} is behind its snippets: run "node scripts/snippets.mjs".`);
  else writeFileSync(path, next);
}
console.log(
  `${count} snippets, ${check ? `${behind} documents behind` : `${behind} documents written`}`,
);
if (check && behind > 0) process.exit(1);
