import { HoneError, issuePath, issueText, trainConfigSchema } from "@hone/core";
import type { ResolvedTrainConfig, TrainConfig } from "@hone/core";

/** The options of a training step with their defaults filled in. `where` names the caller in error messages. */
export function checkTrainConfig(where: string, config: TrainConfig): ResolvedTrainConfig {
  const parsed = trainConfigSchema.safeParse(config);
  if (parsed.success) return parsed.data;
  const options = config.type === undefined ? "the options" : `type "${config.type}"`;
  throw new HoneError(`${where}: ${issueText(parsed.error, options)}.`, {
    code: "invalid_request",
    param: issuePath(parsed.error),
    cause: parsed.error,
  });
}
