/** The options that reach the worker unchanged are declared twice, in zod and in pydantic: alike in every bound. */
import { execFileSync } from "node:child_process";
import { objectiveSchema, optimizerSchema } from "@hone/core";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { workerDir } from "../setup/paths.ts";
import { workerPython } from "../testing/running-engine.ts";

type Properties = Record<string, Record<string, unknown>>;

const script = `
import json
from hone_worker.train.step_data import OptimizerConfig
from hone_worker.train.objectives import OBJECTIVES
schemas = {name: objective.options.model_json_schema() for name, objective in OBJECTIVES.items()}
print(json.dumps({"optimizer": OptimizerConfig.model_json_schema(), "objectives": schemas}))
`;

describe.skipIf(!workerPython())("options of core and of the worker", () => {
  const worker = (): { optimizer: unknown; objectives: Record<string, unknown> } =>
    JSON.parse(
      execFileSync(workerPython()!, ["-c", script], {
        env: { ...process.env, PYTHONPATH: workerDir },
        encoding: "utf8",
      }),
    );

  it("have the same names, bounds and defaults", { timeout: 120_000 }, () => {
    const { optimizer, objectives } = worker();
    // The server's own, stored with each operation.
    const { eps, ...rest } = properties(optimizer);
    expect(eps).toMatchObject({ default: 1e-16 });
    expect(rest).toEqual(properties(jsonSchema(optimizerSchema)));

    const ours = objectiveSchema.options.map((option) => {
      const of = properties(jsonSchema(option));
      return [of["type"]?.["const"], of];
    });
    const theirs = Object.entries(objectives).map(([name, schema]) => [name, properties(schema)]);
    expect(theirs).toEqual(ours);
    for (const schema of [optimizer, ...Object.values(objectives)]) {
      expect(schema).toMatchObject({ additionalProperties: false });
    }
  });
});

function jsonSchema(schema: z.ZodType): unknown {
  return z.toJSONSchema(schema, { io: "input" });
}

/** But for pydantic's titles, and the largest integer that JavaScript can hold. */
function properties(schema: unknown): Properties {
  const { properties: of } = schema as { properties: Properties };
  return Object.fromEntries(
    Object.entries(of).map(([name, { title: _title, ...property }]) => {
      if (property["maximum"] === Number.MAX_SAFE_INTEGER) delete property["maximum"];
      return [name, property];
    }),
  );
}
