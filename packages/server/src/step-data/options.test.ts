/** The options that reach the worker unchanged are declared twice, in zod and in pydantic: alike in every bound. */
import { execFileSync } from "node:child_process";
import {
  bradleyTerryObjectiveSchema,
  dpoObjectiveSchema,
  looksAtWholeRollouts,
  objectiveSchema,
  optimizerSchema,
  sftObjectiveSchema,
  trainConfigSchema,
} from "@hone/core";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { workerDir } from "../setup/paths.ts";
import { workerPython } from "../testing/running-engine.ts";

type Properties = Record<string, Record<string, unknown>>;

const script = `
import json, sys
from pydantic import TypeAdapter, ValidationError
from hone_worker.train.step_data import OptimizerConfig
from hone_worker.train.objectives import OBJECTIVES, LossOptions
schemas = {name: objective.options.model_json_schema() for name, objective in OBJECTIVES.items()}
options = TypeAdapter(LossOptions)
def read(given):
    try:
        found = options.validate_json(json.dumps(given))
    except ValidationError:
        return None
    return OBJECTIVES[found.type].needs(found).whole_rollouts
whole = [read(given) for given in json.load(sys.stdin)]
print(json.dumps({"optimizer": OptimizerConfig.model_json_schema(), "objectives": schemas, "whole": whole}))
`;

interface Worker {
  optimizer: unknown;
  objectives: Record<string, unknown>;
  /** Of each configuration whether it needs whole rollouts; null where it is refused. */
  whole: (boolean | null)[];
}

describe.skipIf(!workerPython())("options of core and of the worker", () => {
  const worker = (configs: readonly unknown[] = []): Worker =>
    JSON.parse(
      execFileSync(workerPython()!, ["-c", script], {
        env: { ...process.env, PYTHONPATH: workerDir },
        encoding: "utf8",
        input: JSON.stringify(configs),
      }),
    );

  it("have the same names, bounds and defaults", { timeout: 120_000 }, () => {
    const { optimizer, objectives } = worker();
    const asked = properties(jsonSchema(optimizerSchema));
    // Left out where nothing was asked for: operations of before there was a choice have the same hash.
    expect(properties(optimizer)).toEqual({
      ...asked,
      optimizer: { ...asked["optimizer"], default: "adamw" },
      eps: { ...asked["eps"], default: 1e-16 },
    });

    for (const option of [
      ...objectiveSchema.options,
      sftObjectiveSchema,
      dpoObjectiveSchema,
      bradleyTerryObjectiveSchema,
    ]) {
      const ours = properties(jsonSchema(option));
      const name = String(ours["type"]?.["const"]);
      // The worker's `type` has a default, with which a configuration is made in a test.
      expect(properties(objectives[name])).toEqual({
        ...ours,
        type: { ...ours["type"], default: name },
      });
    }
    for (const schema of [optimizer, ...Object.values(objectives)]) {
      expect(schema).toMatchObject({ additionalProperties: false });
    }
  });

  it(
    "refuse the same combinations, and agree on which need whole rollouts",
    { timeout: 120_000 },
    () => {
      const values: Record<string, unknown[]> = {
        ...{
          std: ["sample"],
          scaleRewards: ["none", "group", "batch"],
          baseline: ["leave_one_out"],
        },
        ...{
          samplerCorrection: ["none", "token_mask", "sequence_truncate"],
          samplerCorrectionMin: [0.5],
          importanceCap: [1.5],
        },
        ...{
          samplerCorrectionMax: [2],
          mismatchMask: ["none", "token", "sequence"],
          mismatchMin: [0.1],
        },
        ...{ mismatchMax: [4], beta: [0, 0.1], klIn: ["loss", "reward"], klEstimator: ["k2"] },
        ...{
          klBiasCorrection: [true, false],
          measureKl: [true, false],
          reference: ["base", 3],
          offPolicyMaskThreshold: [0.2],
        },
        ...{ importanceLevel: ["token", "sequence"], entropyCoef: [0, 0.1], delta: [3] },
      };
      // Of every type: each option alone, and each pair of them.
      const configs: Record<string, unknown>[] = [];
      for (const option of objectiveSchema.options) {
        const type = properties(jsonSchema(option))["type"]?.["const"];
        const single = Object.entries(values).flatMap(([name, list]) =>
          list.map((value) => ({ [name]: value })),
        );
        for (const one of single) {
          configs.push({ type, ...one });
          for (const other of single) configs.push({ type, ...one, ...other });
        }
      }
      const { whole } = worker(configs);
      const ours = configs.map((config) => {
        // Its teacher is the server's to find, and no option of the worker's.
        const given = config["type"] === "distill" ? { ...config, teacher: "base" } : config;
        const parsed = trainConfigSchema.safeParse(given);
        return parsed.success ? looksAtWholeRollouts(parsed.data) : null;
      });
      const differing = configs.filter((_, i) => ours[i] !== whole[i]);
      expect(differing).toEqual([]);
      expect(new Set(whole)).toEqual(new Set([true, false, null]));
    },
  );
});

function jsonSchema(schema: z.ZodType): unknown {
  return z.toJSONSchema(schema, { io: "input" });
}

/** But for pydantic's titles, what it calls not given, and the largest integer that JavaScript can hold. */
function properties(schema: unknown): Properties {
  const { properties: of } = schema as { properties: Properties };
  return Object.fromEntries(
    Object.entries(of).map(([name, { title: _title, ...property }]) => {
      if (property["maximum"] === Number.MAX_SAFE_INTEGER) delete property["maximum"];
      if (property["default"] === null) delete property["default"];
      return [name, property];
    }),
  );
}
