/** The element types that a training batch has, by safetensors' names. */
const arrays = {
  U8: Uint8Array,
  I32: Int32Array,
  I64: BigInt64Array,
  F32: Float32Array,
  F64: Float64Array,
} as const;

type TensorType = keyof typeof arrays;
type TensorData = InstanceType<(typeof arrays)[TensorType]>;

export interface Tensor {
  type: TensorType;
  data: TensorData;
}

/**
 * One-dimensional tensors as a safetensors file: eight bytes of header length, a JSON header, the data.
 * Wider types come first and the header is padded to eight bytes, so that every tensor is aligned.
 */
export function encodeSafetensors(
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const ordered = Object.entries(tensors).sort(
    ([nameA, a], [nameB, b]) =>
      b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT || (nameA < nameB ? -1 : 1),
  );
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const [name, { type, data }] of ordered) {
    const begin = end;
    end += data.byteLength;
    header[name] = { dtype: type, shape: [data.length], data_offsets: [begin, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const headerLength = Math.ceil(json.length / 8) * 8;
  const file = Buffer.alloc(8 + headerLength + end, " ");
  file.writeBigUInt64LE(BigInt(headerLength), 0);
  json.copy(file, 8);
  let at = 8 + headerLength;
  for (const [, { data }] of ordered) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}

export interface DecodedSafetensors {
  tensors: Record<string, Tensor>;
  metadata: Record<string, string>;
}

/** The inverse, for files that this module wrote. */
export function decodeSafetensors(file: Uint8Array): DecodedSafetensors {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const { __metadata__: metadata, ...entries } = JSON.parse(
    bytes.toString("utf8", 8, 8 + headerLength),
  ) as { __metadata__: Record<string, string> } & Record<
    string,
    { dtype: TensorType; data_offsets: [number, number] }
  >;
  const tensors: Record<string, Tensor> = {};
  for (const [name, { dtype, data_offsets }] of Object.entries(entries)) {
    const [begin, end] = data_offsets.map((offset) => 8 + headerLength + offset);
    const copy = new Uint8Array(bytes.subarray(begin, end)).buffer;
    tensors[name] = { type: dtype, data: new arrays[dtype](copy) };
  }
  return { tensors, metadata };
}
