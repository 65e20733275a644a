import type { OptionAdvice } from "@hone/core";
import type { Facts } from "./facts.ts";

/** Looks at one thing; null where it is in order. */
export type Rule = (facts: Facts) => OptionAdvice | OptionAdvice[] | null;

export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
