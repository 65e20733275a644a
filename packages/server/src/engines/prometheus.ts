/** The values of one metric on a page of Prometheus text, one for each set of labels. */
export function valuesOf(page: string, name: string): number[] {
  const values: number[] = [];
  for (const line of page.split("\n")) {
    if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
    const value = Number(line.slice(line.lastIndexOf(" ") + 1));
    if (Number.isFinite(value)) values.push(value);
  }
  return values;
}

/** Over all labels: several engines behind one server count apart. */
export function sumOf(page: string, name: string): number {
  return valuesOf(page, name).reduce((sum, value) => sum + value, 0);
}
