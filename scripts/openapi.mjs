// The HTTP API of the server's code, as docs/openapi.json: `npm run openapi` writes it, `--check` fails where
// it is behind. What a field means is said once, in the comments of packages/core: they are copied to
// packages/server/src/openapi/descriptions.ts first, for comments do not live to run time.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const check = process.argv.includes("--check");
const core = "packages/core/src";
const descriptions = "packages/server/src/openapi/descriptions.ts";
let behind = 0;

function put(path, text) {
  let now = null;
  try {
    now = readFileSync(path, "utf8");
  } catch {
    // It is made.
  }
  if (now === text) return;
  behind++;
  if (check) console.error(`${path} is behind the code: run "npm run openapi".`);
  else writeFileSync(path, text);
}

/** Comments of the first level of `const …Schema = z.…({`: oxfmt gives it two spaces. */
function fieldComments(source) {
  const found = {};
  const schemas = /^(?:export )?const (\w+Schema)\b[^\n]*\(\{\n([^]*?)^\}\)/gm;
  for (const [, schema, body] of source.matchAll(schemas)) {
    const fields = /^ {2}\/\*\*((?:[^*]|\*(?!\/))*)\*\/\n {2}(\w+):/gm;
    for (const [, comment, field] of body.matchAll(fields)) {
      found[`${schema}.${field}`] = comment
        .replaceAll(/\n\s*\*/g, " ")
        .replaceAll(/\s+/g, " ")
        .trim();
    }
  }
  return found;
}

const sources = readdirSync(core)
  .filter((file) => file.endsWith(".ts") && !file.includes(".test"))
  .sort()
  .map((file) => readFileSync(join(core, file), "utf8"));
const lines = Object.entries(Object.assign({}, ...sources.map(fieldComments))).map(
  ([field, text]) => `  ${JSON.stringify(field)}: ${JSON.stringify(text)},\n`,
);
put(
  descriptions,
  `/** What the fields of core's schemas mean. Made by scripts/openapi.mjs from their comments: edit those. */
export const descriptions: Record<string, string> = {\n${lines.join("")}};\n`,
);

const { openApiDocument } = await import("../packages/server/src/openapi/document.ts");
put("docs/openapi.json", `${JSON.stringify(openApiDocument(), null, 2)}\n`);
console.log(`${lines.length} descriptions, ${Object.keys(openApiDocument().paths).length} paths`);
if (check && behind > 0) process.exit(1);
