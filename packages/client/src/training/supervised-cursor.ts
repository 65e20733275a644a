/**
 * How far the supervised runs of a model have come: steps done, by run. It stands beside what `batches()` keeps in
 * the model's cursor, which the server commits together with each step's weights.
 */
export interface RunCursor {
  readonly supervised?: Readonly<Record<string, number>> | undefined;
}

/** Of whatever a model's cursor is. */
export function supervisedRuns(cursor: unknown): Readonly<Record<string, number>> {
  const { supervised } = (typeof cursor === "object" && cursor ? cursor : {}) as RunCursor;
  return typeof supervised === "object" && supervised !== null ? supervised : {};
}

/** The cursor with what these runs have done since it was made; everything else of it stays. */
export function withRuns<Cursor extends object>(
  cursor: Cursor,
  runs: Readonly<Record<string, number>>,
): Cursor & RunCursor {
  if (Object.keys(runs).length === 0) return cursor;
  const supervised = { ...supervisedRuns(cursor) };
  for (const [run, steps] of Object.entries(runs)) {
    supervised[run] = Math.max(steps, supervised[run] ?? 0);
  }
  return { ...cursor, supervised };
}

/** Whether supervised runs are all that the cursor tells of. */
export function isRunCursor(cursor: unknown): boolean {
  return (
    typeof cursor === "object" && cursor !== null && Object.keys(cursor).join() === "supervised"
  );
}
