/** A value of a metric, with its labels in braces; "" where it has none. Null: there is no such value. */
export type Labelled = readonly [labels: string, value: number | null];

/** One metric as the lines of a page of Prometheus text. */
export function metricLines(
  name: string,
  type: "gauge" | "counter",
  values: readonly Labelled[],
): string[] {
  const told = values.flatMap(([labels, value]) =>
    value === null ? [] : [`${name}${labels} ${value}`],
  );
  return [`# TYPE ${name} ${type}`, ...told];
}
