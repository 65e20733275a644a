import { HoneError, modelListSchema } from "@hone/core";
import type { Connection } from "./connection.ts";

/** The server's model if it has only one. If there are several, one must be named. */
export async function onlyModel(connection: Connection): Promise<string> {
  const { data } = await connection.get(modelListSchema, "/v1/states");
  const [first, second] = data;
  if (first && !second) return first.name;
  const names = data.map(({ name }) => name).join(", ");
  throw new HoneError(names ? `Which model? There are ${names}.` : "There is no model yet.", {
    code: "model_not_found",
  });
}
