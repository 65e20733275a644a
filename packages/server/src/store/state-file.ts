import { readFileSync } from "node:fs";
import { HoneError } from "@hone/core";
import type { z } from "zod";

/**
 * What this program wrote into a file of its own; null where there is none. Throws `invalid_config` for anything else.
 *
 * @param advice who should have written it and what to do, such as "a server wrote. Delete it."
 */
export function readStateFile<Schema extends z.ZodType>(
  file: string,
  schema: Schema,
  advice: string,
): z.infer<Schema> | null {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new HoneError(`${file} is not what ${advice}`, { code: "invalid_config", cause });
  }
}
