import type { Keep } from "@hone/core";
import { InvalidArgumentError } from "commander";

/** How many policies stay: a number of at least 1, or `all`. */
export function keepOf(text: string): Keep {
  if (text === "all") return "all";
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1) return value;
  throw new InvalidArgumentError("It must be a whole number of at least 1, or all.");
}
