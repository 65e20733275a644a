import {
  bytesField,
  doubleField,
  doubleOf,
  entryOf,
  fieldsOf,
  intOf,
  intsOf,
  messageOf,
  textOf,
  varintField,
  type WireField,
} from "./wire.ts";

// The messages of `tinker_public.proto` that a loop of text sends and reads, by the field numbers of Tinker's client
// 0.38. A field that is not named here is one that is refused or one that says nothing.

/** `ForwardBackwardRequest` */
export interface PassRequest {
  modelId: string;
  seqId: number;
  data: WireDatum[];
  lossFn: string;
  lossConfig: Map<string, number | string>;
  forwardOnly: boolean;
}

export interface WireDatum {
  chunks: WireChunk[];
  inputs: Map<string, WireTensor>;
  /** It names the samples that it comes from. */
  spans: boolean;
}

/** Token ids, each four bytes; or something else than text, by its name. */
type WireChunk = { text: Uint8Array } | { other: string };

export interface WireTensor {
  dtype: number;
  shape: number[];
  /** Null where it is sparse. */
  dense: Uint8Array | null;
}

/** Values of the enum `DType`. */
export const dtypes = { float32: 1, int64: 2, int32: 3 } as const;

export function decodePassRequest(body: Uint8Array): PassRequest {
  const request: PassRequest = {
    ...{ modelId: "", seqId: 0, data: [], lossFn: "", forwardOnly: false },
    lossConfig: new Map(),
  };
  const legacy = new Map<string, number>();
  for (const field of fieldsOf(body)) {
    if (field.number === 1) request.modelId = textOf(field);
    if (field.number === 2) request.seqId = intOf(field);
    if (field.number === 3) request.data.push(decodeDatum(messageOf(field)));
    if (field.number === 4) request.lossFn = textOf(field);
    if (field.number === 5) {
      const { key, value } = entryOf(field);
      legacy.set(key, value ? doubleOf(value) : 0);
    }
    if (field.number === 6) request.forwardOnly = intOf(field) !== 0;
    if (field.number === 7) {
      const { key, value } = entryOf(field);
      request.lossConfig.set(key, value ? lossValue(messageOf(value)) : 0);
    }
  }
  // Clients write numbers to both; the second map has texts too.
  if (request.lossConfig.size === 0) request.lossConfig = legacy;
  return request;
}

function lossValue(message: Uint8Array): number | string {
  let value: number | string = 0;
  for (const field of fieldsOf(message))
    value = field.number === 1 ? doubleOf(field) : textOf(field);
  return value;
}

function decodeDatum(message: Uint8Array): WireDatum {
  const datum: WireDatum = { chunks: [], inputs: new Map(), spans: false };
  for (const field of fieldsOf(message)) {
    if (field.number === 1) datum.chunks.push(decodeChunk(messageOf(field)));
    if (field.number === 2) {
      const { key, value } = entryOf(field);
      datum.inputs.set(key, decodeTensor(value));
    }
    if (field.number === 3 || field.number === 4) datum.spans = true;
  }
  return datum;
}

function decodeChunk(message: Uint8Array): WireChunk {
  for (const field of fieldsOf(message)) {
    if (field.number !== 1) return { other: field.number === 2 ? "image" : "audio" };
    for (const part of fieldsOf(messageOf(field))) {
      if (part.number === 1) return { text: messageOf(part) };
    }
  }
  return { text: new Uint8Array() };
}

function decodeTensor(value: WireField | null): WireTensor {
  const tensor: WireTensor = { dtype: 0, shape: [], dense: new Uint8Array() };
  for (const field of value ? fieldsOf(messageOf(value)) : []) {
    if (field.number === 1) tensor.dense = messageOf(field);
    if (field.number === 2) tensor.dense = null;
    if (field.number === 3) tensor.dtype = intOf(field);
    if (field.number === 4) tensor.shape = tensor.shape.concat(intsOf(field));
  }
  return tensor;
}

/** `ForwardBackwardOutput`: of each datum the logprobs of its targets. */
export function encodePassOutput(
  logprobs: readonly (readonly number[])[],
  metrics: Readonly<Record<string, number>>,
): Uint8Array {
  const offsets = new BigInt64Array(logprobs.length + 1);
  logprobs.forEach((one, at) => {
    offsets[at + 1] = offsets[at]! + BigInt(4 * one.length);
  });
  const tensor = Buffer.concat([
    bytesField(1, raw(Float32Array.from(logprobs.flat()))),
    bytesField(2, raw(offsets)),
    varintField(3, dtypes.float32),
  ]);
  const record = Buffer.concat([
    bytesField(1, "ArrayRecord"),
    bytesField(2, Buffer.concat([bytesField(1, "logprobs"), bytesField(2, tensor)])),
    varintField(3, logprobs.length),
  ]);
  return Buffer.concat([
    bytesField(1, "ArrayRecord"),
    bytesField(2, record),
    ...Object.entries(metrics).map(([name, value]) =>
      bytesField(3, Buffer.concat([bytesField(1, name), doubleField(2, value)])),
    ),
  ]);
}

/** `SampledSequence` */
interface SequenceOutput {
  ids: readonly number[];
  logprobs: readonly number[];
  /** The likeliest tokens at each place, `k` at most; not told where `k` is 0. */
  top: readonly (readonly { id: number; logprob: number }[])[];
  finish: "stop" | "length";
}

/** `SampleResponse`. `promptLogprobs` has a value for each token of the prompt, NaN where there is none. */
export function encodeSamples(
  sequences: readonly SequenceOutput[],
  k: number,
  promptLogprobs: readonly number[] | null,
): Uint8Array {
  return Buffer.concat([
    ...sequences.map((sequence) => bytesField(1, encodeSequence(sequence, k))),
    ...(promptLogprobs ? [bytesField(2, raw(Float32Array.from(promptLogprobs)))] : []),
  ]);
}

function encodeSequence({ ids, logprobs, top, finish }: SequenceOutput, k: number): Uint8Array {
  return Buffer.concat([
    varintField(1, finish === "stop" ? 0 : 1),
    bytesField(2, raw(Int32Array.from(ids))),
    bytesField(3, raw(Float32Array.from(logprobs))),
    ...(k > 0 ? [bytesField(4, encodeTop(top, k))] : []),
  ]);
}

/** What stands for a token that is not there: the client leaves these out of its lists. */
const noToken = { id: 0, logprob: -99_999 };

function encodeTop(top: SequenceOutput["top"], k: number): Uint8Array {
  const cells = top.flatMap((one) => Array.from({ length: k }, (_, at) => one[at] ?? noToken));
  return Buffer.concat([
    bytesField(1, raw(Int32Array.from(cells.map(({ id }) => id)))),
    bytesField(2, raw(Float32Array.from(cells.map(({ logprob }) => logprob)))),
    varintField(3, k),
    varintField(4, top.length),
  ]);
}

function raw(values: Float32Array | Int32Array | BigInt64Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
