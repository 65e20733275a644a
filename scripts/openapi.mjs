// The HTTP API of the server's code, as docs/openapi.json: `npm run openapi` writes it, `--check` fails where
// it is behind.
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { openApiDocument } from "../packages/server/src/openapi/document.ts";

const path = "docs/openapi.json";
const next = `${JSON.stringify(openApiDocument(), null, 2)}\n`;
if (!process.argv.includes("--check")) {
  writeFileSync(path, next);
} else if (read() !== next) {
  console.error(`${path} is behind the code: run "npm run openapi".`);
  process.exit(1);
}
console.log(`${path}: ${Object.keys(openApiDocument().paths).length} paths`);

function read() {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
