import { HoneError } from "@hone/core";

/** One field of a protocol buffers message, as it stands on the wire: what it means is for the message to know. */
export interface WireField {
  number: number;
  /** A number; of a double or a fixed width it is read by `doubleOf`. */
  varint: bigint;
  /** Text, bytes, a message, a packed list, a fixed width. Empty where the field is a varint. */
  bytes: Uint8Array;
  kind: "varint" | "fixed64" | "bytes" | "fixed32";
}

const kinds = ["varint", "fixed64", "bytes", null, null, "fixed32"] as const;
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The fields of a message in their order. Nothing is copied: `bytes` are parts of what is given. */
export function* fieldsOf(message: Uint8Array): Generator<WireField> {
  let at = 0;

  function varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = message[at++];
      if (byte === undefined) throw notWire("it ends within a number");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw notWire("a number has more than 64 bits");
  }

  function take(length: number): Uint8Array {
    const end = at + length;
    if (end > message.length) throw notWire("it ends within a field");
    const part = message.subarray(at, end);
    at = end;
    return part;
  }

  const none = new Uint8Array();
  while (at < message.length) {
    const tag = Number(varint());
    const number = Math.floor(tag / 8);
    const kind = kinds[tag % 8];
    if (number === 0 || !kind) throw notWire(`it has a field of the kind ${tag % 8}`);
    if (kind === "varint") yield { number, kind, varint: varint(), bytes: none };
    else {
      const length = kind === "bytes" ? Number(varint()) : kind === "fixed64" ? 8 : 4;
      yield { number, kind, varint: 0n, bytes: take(length) };
    }
  }
}

export function textOf({ bytes }: WireField): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw notWire("a text is not UTF-8", cause);
  }
}

export function messageOf(field: WireField): Uint8Array {
  if (field.kind !== "bytes") throw notWire(`field ${field.number} is no message`);
  return field.bytes;
}

export function doubleOf(field: WireField): number {
  if (field.kind !== "fixed64") throw notWire(`field ${field.number} is no double`);
  const { buffer, byteOffset } = field.bytes;
  return new DataView(buffer, byteOffset, 8).getFloat64(0, true);
}

export function intOf(field: WireField): number {
  if (field.kind !== "varint") throw notWire(`field ${field.number} is no number`);
  const value = Number(BigInt.asIntN(64, field.varint));
  // Rounded it would be another number, without a word.
  if (!Number.isSafeInteger(value)) throw notWire(`field ${field.number} is beyond 2^53`);
  return value;
}

/** A repeated number, which may stand packed in one field or each in one of its own. */
export function intsOf(field: WireField): number[] {
  if (field.kind === "varint") return [intOf(field)];
  const ints: number[] = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of messageOf(field)) {
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (shift > 70n) throw notWire("a number has more than 64 bits");
    if (byte >= 0x80) continue;
    const int = Number(BigInt.asIntN(64, value));
    if (!Number.isSafeInteger(int))
      throw notWire(`a number of field ${field.number} is beyond 2^53`);
    ints.push(int);
    [value, shift] = [0n, 0n];
  }
  if (shift > 0n) throw notWire("it ends within a number");
  return ints;
}

/** Key and value of a map's entry. A value that is left out is null: it is the default of its type. */
export function entryOf(field: WireField): { key: string; value: WireField | null } {
  let key = "";
  let value: WireField | null = null;
  for (const part of fieldsOf(messageOf(field))) {
    if (part.number === 1) key = textOf(part);
    if (part.number === 2) value = part;
  }
  return { key, value };
}

export function varintField(number: number, value: number): Buffer {
  return Buffer.concat([varintBytes(number * 8), varintBytes(value)]);
}

/** A text, bytes, or a message. */
export function bytesField(number: number, value: string | Uint8Array): Buffer {
  const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
  return Buffer.concat([varintBytes(number * 8 + 2), varintBytes(bytes.length), bytes]);
}

export function doubleField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([varintBytes(number * 8 + 1), bytes]);
}

/** Of a number from 0 on. */
function varintBytes(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

function notWire(reason: string, cause?: unknown): HoneError {
  return new HoneError(
    `The body is no protocol buffers message: ${reason}. Send what Tinker's client makes.`,
    { code: "invalid_request", cause },
  );
}
