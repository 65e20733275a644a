import { readFileSync } from "node:fs";
import { HoneError } from "@hone/core";
import { scenarioSchema, type Scenario } from "./scenarios.ts";

/** The scenarios of a file, one a line, as `npm run scenarios` writes them. */
export function readScenarios(url: URL): Scenario[] {
  try {
    const lines = readFileSync(url, "utf8").split("\n").filter(Boolean);
    return lines.map((line) => scenarioSchema.parse(JSON.parse(line)));
  } catch (cause) {
    throw new HoneError(`${url.pathname} holds no scenarios. Write it with npm run scenarios.`, {
      ...{ code: "invalid_config", cause },
    });
  }
}
