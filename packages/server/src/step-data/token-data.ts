import { type Datum, type ForwardBackwardOp, type ForwardOp, readByLoss } from "@hone/core";
import { planMicroBatches } from "./plan.ts";
import { encodeSafetensors } from "./safetensors.ts";

type Op = ForwardOp | ForwardBackwardOp;
/** `plan[micro-batch]` lists data by their places. */
export type TokenPlan = number[][];

/** Which data go through the model together, decided once: a redone operation adds in the same order. */
export function planData({ data, maxTokensPerMicroBatch }: Op): TokenPlan {
  const leaves = data.map(({ tokens }, index) => ({
    index,
    rollout: index,
    group: 0,
    path: [Int32Array.from(tokens)],
  }));
  return planMicroBatches(leaves, { optimizerSteps: 1, maxTokensPerMicroBatch }).flat();
}

/** The body of `POST /forward_backward` (docs/worker-contract.md). */
export function encodeTokenData(
  { data, loss, temperature }: Op,
  config: {
    operation_id: string;
    model: string;
    staging: string;
    checkpoint: string;
    plan: TokenPlan;
    backward: boolean;
    gradient?: string | undefined;
  },
): Uint8Array {
  const offsets = new BigInt64Array(data.length + 1);
  data.forEach(({ tokens }, at) => {
    offsets[at + 1] = offsets[at]! + BigInt(tokens.length);
  });
  const total = Number(offsets.at(-1));
  const ints = (name: "tokens" | "targets") =>
    ({ type: "I32", data: Int32Array.from(data.flatMap((datum) => datum[name])) }) as const;
  const read = readByLoss(loss.type);
  const floats = (name: "weights" | "logprobs" | "advantages", missing: number) =>
    ({
      type: "F32",
      data: read.includes(name)
        ? Float32Array.from(data.flatMap((datum) => datum[name] ?? filled(datum, missing)))
        : new Float32Array(total),
    }) as const;
  return encodeSafetensors(
    {
      offsets: { type: "I64", data: offsets },
      tokens: ints("tokens"),
      targets: ints("targets"),
      weights: floats("weights", 1),
      logprobs: floats("logprobs", 0),
      advantages: floats("advantages", 0),
    },
    {
      config: JSON.stringify({ ...config, loss, temperature }),
    },
  );
}

function filled({ tokens }: Datum, value: number): number[] {
  return tokens.map(() => value);
}
