import { parseModelRef } from "@hone/core";
import { InvalidArgumentError } from "commander";

export interface PolicyRef {
  model: string;
  step: number;
}

/** Reads `model@N`. The alias alone is refused, because it means another policy after the next step. */
export function policyRefOf(text: string): PolicyRef {
  const ref = parseModelRef(text);
  if (ref !== null && ref.step !== null) return { model: ref.model, step: ref.step };
  throw new InvalidArgumentError("Give a policy as model@N, such as agent-2048@12.");
}
