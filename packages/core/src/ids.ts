import { z } from "zod";
import { HoneError } from "./errors.ts";

/** The grammar of a model's name. */
export const modelNamePattern = /^[a-z0-9][a-z0-9._-]{0,63}$/;

export const modelNameSchema = z
  .string()
  .regex(
    modelNamePattern,
    "a model name is 1–64 of a-z 0-9 . _ - and begins with a letter or digit",
  );

/** A reference to a model: `name` or `name@N`. */
export const modelRefSchema = z
  .string()
  .refine((ref) => parseModelRef(ref) !== null, 'is no model: use "name" or "name@step"');

/** `name@N`: one immutable set of LoRA weights. */
export type PolicyName = `${string}@${number}`;

export function policyName(model: string, step: number): PolicyName {
  return `${model}@${step}`;
}

/** A model reference: `name` (the newest served policy) or `name@N`. Null where it is neither. */
export function parseModelRef(ref: string): { model: string; step: number | null } | null {
  const match = /^([a-z0-9][a-z0-9._-]{0,63})(?:@(0|[1-9][0-9]{0,8}))?$/.exec(ref);
  if (!match?.[1]) return null;
  return { model: match[1], step: match[2] === undefined ? null : Number(match[2]) };
}

/** Like `parseModelRef`, but an unreadable reference is an error. */
export function requireModelRef(ref: string): { model: string; step: number | null } {
  const parsed = parseModelRef(ref);
  if (parsed) return parsed;
  throw new HoneError(`"${ref.slice(0, 80)}" is not a model: use "name" or "name@step".`, {
    code: "model_not_found",
    param: "model",
  });
}

export type IdPrefix = "ro" | "op" | "cmpl" | "grp" | "chatcmpl" | "run";

// Web Crypto is everywhere Hone runs; core has the types of no platform.
const { crypto } = globalThis as unknown as {
  crypto: { getRandomValues(array: Uint8Array): Uint8Array };
};

/** A new random id, such as `ro_2f0c…` (24 hexadecimal digits). */
export function newId<P extends IdPrefix>(prefix: P): `${P}_${string}` {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${prefix}_${Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}

/** Ids that a client may choose itself (rollouts, groups, client tokens). */
export const clientIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/, "an id is 1–128 of A-Z a-z 0-9 . _ : -");
