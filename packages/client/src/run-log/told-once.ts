import type { StepRecord } from "./step-record.ts";

type Told = StepRecord["warnings"][number];

/**
 * Of what holds in a step, what begins with it and is told, and the kinds that were told at an earlier step and hold
 * still. A step that trained nothing lacks most figures, so what held before it goes on behind it.
 */
export function toldOnce(
  holding: readonly Told[],
  earlier: readonly StepRecord[],
): Pick<StepRecord, "warnings" | "lasting"> {
  const before = [earlier.at(-1), earlier.findLast(({ trained }) => trained)];
  const known = new Set(
    before.flatMap((step) => (step ? [...step.warnings.map(kindOf), ...(step.lasting ?? [])] : [])),
  );
  const lasting = [...new Set(holding.map(kindOf).filter((kind) => known.has(kind)))];
  return {
    warnings: holding.filter((warning) => !known.has(kindOf(warning))),
    ...(lasting.length > 0 && { lasting }),
  };
}

/** The server's have no code of their own: the same words, whatever their figures are, are the same warning. */
function kindOf({ code, message }: Told): string {
  return code === "server" ? message.replaceAll(/\d[\d.e+-]*/g, "#") : code;
}
