import type { Op, OperationRecord } from "../records.ts";
import { bradleyTerry } from "./bradley-terry.ts";
import { dpo } from "./dpo.ts";
import { forward, forwardBackward } from "./forward.ts";
import { importAdapter } from "./import.ts";
import type { OperationKind } from "./kind.ts";
import { optimStep } from "./optim-step.ts";
import { publish } from "./publish.ts";
import { sft } from "./sft.ts";
import { train } from "./train.ts";

const kinds: Readonly<Record<Op["type"], OperationKind>> = {
  train,
  sft,
  dpo,
  bradley_terry: bradleyTerry,
  forward,
  forward_backward: forwardBackward,
  optim_step: optimStep,
  import: importAdapter,
  publish,
};

/** The kind of an operation, which is given no other operations than its own. */
export function kindOf({ op }: Pick<OperationRecord, "op">): OperationKind {
  return kinds[op.type];
}
