import { HoneError } from "@hone/core";
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

/** Throws where the adapters of a model are of another base than this server's, on which a step would be a wrong one. */
export function requireSameBase(
  model: { name: string; base: string; quantize: Quantize | null },
  served: AdapterBase,
): void {
  if (isSameBase(baseOf(model), served)) return;
  throw new HoneError(
    `The model "${model.name}" is of the base ${baseInWords(baseOf(model))}, this server serves ${baseInWords(served)}. Start a server with that base, or choose another model name.`,
    { code: "base_mismatch", param: "base" },
  );
}

/** What a policy's manifest says of the numbers that it was made with. */
export function precisionOf(base: { dtype: string; quantize?: Quantize | null | undefined }): {
  dtype: string;
  quantize?: Quantize;
} {
  return { dtype: base.dtype, ...(base.quantize && { quantize: base.quantize }) };
}
