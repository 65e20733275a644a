/** An array of numbers as SQLite keeps it. */
export function bytesOf(array: Int32Array | Float32Array): Uint8Array {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

/** A buffer of its own, because the offset of a view need not be a multiple of four. */
export function copyOf(bytes: ArrayBuffer | Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}
