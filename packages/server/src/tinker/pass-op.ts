import {
  type Datum,
  type ForwardBackwardOp,
  forwardBackwardOpSchema,
  type ForwardOp,
  forwardOpSchema,
  type ForwardResult,
  HoneError,
} from "@hone/core";
import { issuesToError } from "../http/json.ts";
import { dtypes, type PassRequest, type WireDatum, type WireTensor } from "./messages.ts";

/** The losses, with the names of their options there and here. */
const losses: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  cross_entropy: {},
  importance_sampling: {},
  ppo: { clip_low_threshold: "clipLow", clip_high_threshold: "clipHigh" },
  cispo: { clip_low_threshold: "clipLow", clip_high_threshold: "clipHigh" },
  dro: { beta: "beta" },
};

/** The lists of a datum, with their names there and here. */
const lists = new Map<string, Exclude<keyof Datum, "tokens">>([
  ["target_tokens", "targets"],
  ["weights", "weights"],
  ["logprobs", "logprobs"],
  ["advantages", "advantages"],
]);

/** The operation that a request asks for. `fresh`: it is the first of its step. */
export function passOp(request: PassRequest, fresh: boolean): ForwardOp | ForwardBackwardOp {
  const given = {
    data: request.data.map(datumOf),
    loss: lossOf(request),
  };
  const parsed = request.forwardOnly
    ? forwardOpSchema.safeParse({ type: "forward", ...given })
    : forwardBackwardOpSchema.safeParse({ type: "forward_backward", fresh, ...given });
  if (parsed.success) return parsed.data;
  throw issuesToError(parsed.error.issues);
}

function lossOf({ lossFn, lossConfig }: PassRequest): Record<string, unknown> {
  const names = Object.hasOwn(losses, lossFn) ? losses[lossFn] : undefined;
  if (!names) {
    throw refused(
      "loss_fn",
      `there is no "${lossFn.slice(0, 40)}" here. Use one of ${Object.keys(losses).join(", ")}, or forward_backward_custom`,
    );
  }
  const loss: Record<string, unknown> = { type: lossFn };
  for (const [name, value] of lossConfig) {
    const ours = Object.hasOwn(names, name) ? names[name] : undefined;
    if (ours === undefined) {
      const known = Object.keys(names).join(", ") || "none";
      throw refused(
        `loss_fn_config.${name.slice(0, 40)}`,
        `the loss "${lossFn}" has no such option here. It has: ${known}`,
      );
    }
    loss[ours] = value;
  }
  return loss;
}

function datumOf({ chunks, inputs, spans }: WireDatum, index: number): Record<string, number[]> {
  const at = `data[${index}]`;
  if (spans) throw refused(`${at}.model_input_spans`, "there is no stable_reinforce here");
  const tokens: number[] = [];
  for (const chunk of chunks) {
    if (!("text" in chunk)) {
      throw refused(`${at}.model_input`, `it holds ${chunk.other}. Only text is read here`);
    }
    for (const id of new Int32Array(whole(chunk.text, 4, `${at}.model_input`))) tokens.push(id);
  }
  const datum: Record<string, number[]> = { tokens };
  for (const [name, tensor] of inputs) {
    const where = `${at}.loss_fn_inputs.${name.slice(0, 40)}`;
    const ours = lists.get(name);
    if (!ours) {
      throw refused(where, `no loss reads it here. They read ${[...lists.keys()].join(", ")}`);
    }
    datum[ours] = numbersOf(tensor, where);
  }
  return datum;
}

function numbersOf({ dense, dtype, shape }: WireTensor, where: string): number[] {
  if (dense === null || shape.length > 1) {
    throw refused(where, "it has more than one value a place. Here a place has one target");
  }
  if (dtype === dtypes.float32) return Array.from(new Float32Array(whole(dense, 4, where)));
  if (dtype === dtypes.int32) return Array.from(new Int32Array(whole(dense, 4, where)));
  if (dtype === dtypes.int64) return Array.from(new BigInt64Array(whole(dense, 8, where)), Number);
  throw refused(where, `its dtype is number ${dtype}. Send float32 or int64`);
}

/** The bytes as a buffer of their own, for views need them aligned. */
function whole(bytes: Uint8Array, width: number, where: string): ArrayBuffer {
  if (bytes.length % width !== 0) {
    throw refused(where, `it has ${bytes.length} bytes, which are no values of ${width} bytes`);
  }
  return new Uint8Array(bytes).buffer;
}

/**
 * Metrics as the client adds up those of several requests: `name:rule`. Those that would need a rule which it does not
 * have are left out.
 */
export function passMetrics({ loss, metrics }: ForwardResult): Record<string, number> {
  const told: Record<string, number> = { "loss:sum": loss };
  for (const [name, value] of Object.entries(metrics)) {
    if (value === null) continue;
    const rule = rules.get(name) ?? /\/(mean|max)$/.exec(name)?.[1];
    if (rule !== undefined) told[`${name}:${rule}`] = value;
  }
  return told;
}

const rules = new Map([
  ["train_tokens", "sum"],
  ["model_tokens", "sum"],
  ["step_time", "sum"],
]);

function refused(param: string, message: string): HoneError {
  return new HoneError(`${param}: ${message}.`, { code: "unsupported_parameter", param });
}
