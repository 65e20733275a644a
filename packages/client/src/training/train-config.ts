import { trainConfigSchema } from "@hone/core";
import type { ResolvedTrainConfig, TrainConfig } from "@hone/core";
import { parsedOptions } from "./parsed-options.ts";

/** The options of a training step with their defaults filled in. `where` names the caller in error messages. */
export function checkTrainConfig(where: string, config: TrainConfig): ResolvedTrainConfig {
  const options = config.type === undefined ? "the options" : `type "${config.type}"`;
  return parsedOptions(where, trainConfigSchema.safeParse(config), options);
}
