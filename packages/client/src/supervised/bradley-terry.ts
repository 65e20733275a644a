import { bradleyTerryConfigSchema } from "@hone/core";
import type { BradleyTerryConfig, Pair } from "@hone/core";
import { parsedOptions } from "../training/parsed-options.ts";
import { type DpoExample, preference } from "./dpo.ts";
import type { RunOptions } from "./run-options.ts";
import type { Learning } from "./supervised-run.ts";

export type BradleyTerryOptions = BradleyTerryConfig & RunOptions<DpoExample>;

export const rewardModel: Learning<Pair> = {
  ...preference,
  type: "bradley_terry",
  where: "bradleyTerry()",
  stepNames: Object.keys(bradleyTerryConfigSchema.shape),
  check: (options) => parsedOptions("bradleyTerry()", bradleyTerryConfigSchema.safeParse(options)),
};
