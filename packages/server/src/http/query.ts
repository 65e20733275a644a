import type { Context } from "hono";
import type { z } from "zod";
import type { AppEnv } from "./env.ts";
import { issuesToError } from "./json.ts";

/** The only way in for a query string: unknown parameters and bad values are refused by name. */
export function readQuery<S extends z.ZodType>(c: Context<AppEnv>, schema: S): z.output<S> {
  const result = schema.safeParse(c.req.query());
  if (result.success) return result.data;
  throw issuesToError(result.error.issues);
}
