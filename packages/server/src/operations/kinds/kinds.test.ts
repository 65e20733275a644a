import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { operationTypeSchema } from "@hone/core";
import { expect, test } from "vitest";
import { kindOf } from "./kinds.ts";

const source = fileURLToPath(new URL("../..", import.meta.url));

test("each type of the wire has a kind of its own", () => {
  const kinds = operationTypeSchema.options.map((type) => kindOf({ op: { type } as never }));
  expect(new Set(kinds).size).toBe(operationTypeSchema.options.length);
  for (const kind of kinds) expect(kind.run).toBeTypeOf("function");
});

// Tinker's API is a wire of its own, which has to say what an answer of each kind looks like there. The command line
// is a client: it reads the answers that it has asked for.
test("nothing outside of this folder but another wire and a client asks which kind an operation is of", () => {
  const types = operationTypeSchema.options.join("|");
  const asks = new RegExp(`\\btype\\s*[!=]==?\\s*"(${types})"|\\bcase "(${types})"`);
  const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter(
    (file) =>
      file.endsWith(".ts") &&
      !/\.test\.ts$|^testing\/|^tinker\/|^cli\/|^operations\/kinds\//.test(file),
  );
  expect(files.length).toBeGreaterThan(100);
  expect(files.filter((file) => asks.test(readFileSync(join(source, file), "utf8")))).toEqual([]);
});
