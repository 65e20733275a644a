import type { Quantize } from "../ports/trainer.ts";

/** What an adapter was trained on. With a base of other weights it says something else, without any error. */
export interface AdapterBase {
  name: string;
  quantize?: Quantize | null | undefined;
}

/** What a model was made on. */
export function baseOf(model: { base: string; quantize: Quantize | null }): AdapterBase {
  return { name: model.base, quantize: model.quantize };
}

export function isSameBase(one: AdapterBase, other: AdapterBase): boolean {
  return one.name === other.name && (one.quantize ?? null) === (other.quantize ?? null);
}

/** For messages: its name, and how `serve` is told to hold it so. */
export function baseInWords({ name, quantize }: AdapterBase): string {
  return `"${name}"${quantize ? ` in 4 bits (--quantize ${quantize})` : ""}`;
}

/** What a policy's manifest says of the numbers that it was made with. */
export function precisionOf(base: { dtype: string; quantize?: Quantize | null | undefined }): {
  dtype: string;
  quantize?: Quantize;
} {
  return { dtype: base.dtype, ...(base.quantize && { quantize: base.quantize }) };
}
