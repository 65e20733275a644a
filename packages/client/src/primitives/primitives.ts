import {
  forwardBackwardOpSchema,
  forwardOpSchema,
  newId,
  optimStepOpSchema,
  refuseUnknownOptions,
} from "@hone/core";
import type {
  Datum,
  ForwardResult,
  OperationEvent,
  OptimStepConfig,
  OptimStepResult,
  SubmitOperation,
  TokenLoss,
} from "@hone/core";
import type { Transport } from "@hone/transport";
import type { LimitFunction } from "p-limit";
import {
  optionalFunction,
  requireList,
  requireSignal,
  requireSubmission,
} from "../argument-kinds.ts";
import { parsedOptions } from "../training/parsed-options.ts";
import { startOperation } from "../training/train-handle.ts";

/** What every operation of a loop of one's own takes. */
interface LoopOptions {
  /** The number that the newest learnt policy should have. If it has another, the error is `step_mismatch`. */
  expectedStep?: number | undefined;
  /** Names the operation. If you submit the same token again, even after a crash, you get the same operation. */
  clientToken?: string | undefined;
  onEvent?: ((event: OperationEvent) => void) | undefined;
  /** Aborting it ends the operation on the server too. */
  signal?: AbortSignal | undefined;
}

export interface ForwardOptions extends LoopOptions {
  /** What is summed over the tokens: the name of a loss, or one with its options. @default "cross_entropy" */
  loss?: TokenLoss["type"] | TokenLoss | undefined;
  /** The temperature at which `logprobs` were sampled. @default 1 */
  temperature?: number | undefined;
  /** Tokens that go through the model at once. What sequences share from their beginning counts once. @default 16384 */
  maxTokensPerMicroBatch?: number | undefined;
}

export interface ForwardBackwardOptions extends ForwardOptions {
  /** Lets go of the gradients that earlier calls left, such as those of a program that ended before its step. @default false */
  fresh?: boolean | undefined;
}

export interface OptimStepOptions extends OptimStepConfig, LoopOptions {
  /** How many calls of `forwardBackward` the step should go by. If there are others, the error is `no_gradient`. */
  accumulated?: number | undefined;
}

export interface LoopModel {
  name: string;
  transport: Transport;
  /** Calls that are not awaited reach the server in the order in which they were made. */
  inOrder: LimitFunction;
}

const loopNames = ["expectedStep", "clientToken", "onEvent", "signal"] as const;
const forwardNames = ["loss", "temperature", "maxTokensPerMicroBatch"] as const;
const optimNames = [
  ...[
    "optimizer",
    "learningRate",
    "warmupSteps",
    "beta1",
    "beta2",
    "eps",
    "weightDecay",
    "maxGradNorm",
  ],
  "accumulated",
] as const;

export async function forward(
  model: LoopModel,
  data: readonly Datum[],
  options: ForwardOptions,
): Promise<ForwardResult> {
  return await pass(model, "forward", data, options);
}

export async function forwardBackward(
  model: LoopModel,
  data: readonly Datum[],
  options: ForwardBackwardOptions,
): Promise<ForwardResult> {
  return await pass(model, "forward_backward", data, options);
}

async function pass(
  model: LoopModel,
  type: ForwardResult["type"],
  data: readonly Datum[],
  options: ForwardBackwardOptions,
): Promise<ForwardResult> {
  const backward = type === "forward_backward";
  const where = backward ? "forwardBackward()" : "forward()";
  const own = backward ? [...forwardNames, "fresh"] : forwardNames;
  checkLoopOptions(where, options, own);
  requireList(where, data, "data");
  const { loss = "cross_entropy", temperature, maxTokensPerMicroBatch, fresh } = options;
  const given = {
    data,
    loss: typeof loss === "string" ? { type: loss } : loss,
    temperature,
    maxTokensPerMicroBatch,
    ...(backward && { fresh }),
  };
  const op = backward
    ? parsedOptions(where, forwardBackwardOpSchema.safeParse({ type, ...given }))
    : parsedOptions(where, forwardOpSchema.safeParse({ type, ...given }));
  return await done<ForwardResult>(model, op, options, [type]);
}

export async function optimStep(
  model: LoopModel,
  options: OptimStepOptions,
): Promise<OptimStepResult> {
  const where = "optimStep()";
  checkLoopOptions(where, options, optimNames);
  const config = Object.fromEntries(
    Object.entries(options).filter(
      ([name]) => name !== "accumulated" && !(loopNames as readonly string[]).includes(name),
    ),
  );
  const { accumulated } = options;
  const given = { type: "optim_step", config, accumulated };
  const op = parsedOptions(where, optimStepOpSchema.safeParse(given));
  return await done<OptimStepResult>(model, op, options, ["optim_step"]);
}

function checkLoopOptions(where: string, options: LoopOptions, own: readonly string[]): void {
  refuseUnknownOptions(where, options, [...own, ...loopNames]);
  requireSubmission(where, options);
  requireSignal(where, options);
  optionalFunction(where, options.onEvent, "onEvent");
}

async function done<Result extends ForwardResult | OptimStepResult>(
  { name, transport, inOrder }: LoopModel,
  op: SubmitOperation["op"],
  { clientToken, expectedStep, onEvent, signal }: LoopOptions,
  types: readonly Result["type"][],
): Promise<Result> {
  return await startOperation<Result>({
    transport,
    model: name,
    submission: {
      clientToken: clientToken ?? newId("op"),
      ...(expectedStep === undefined ? {} : { expectedStep }),
      op,
    },
    inOrder,
    types,
    signal,
    onEvent,
    onResult: (result) => result,
  }).result;
}
