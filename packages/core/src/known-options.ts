import { HoneError } from "./errors.ts";

/** Options are checked by name at run time too: a misspelt one must not be ignored in silence. */
export function refuseUnknownOptions(
  where: string,
  options: object,
  known: readonly string[],
): void {
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw new HoneError(`${where} has no option "${key}". It knows: ${known.join(", ")}.`, {
      code: "unsupported_parameter",
      param: key,
    });
  }
}
