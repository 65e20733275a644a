/** Three figures of it. */
export const short = (value: number): string => String(Number(value.toPrecision(3)));

export const percent = (share: number): string => `${Math.round(100 * share)}%`;
