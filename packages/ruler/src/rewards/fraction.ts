/** An exact number: what floating point would round away cannot make a wrong answer right. */
export interface Fraction {
  readonly top: bigint;
  /** Above zero. */
  readonly bottom: bigint;
}

export function fraction(top: bigint, bottom = 1n): Fraction {
  if (bottom === 0n) throw new RangeError("A fraction by zero.");
  const sign = bottom < 0n ? -1n : 1n;
  const common = gcd(top < 0n ? -top : top, bottom * sign) || 1n;
  return { top: (top * sign) / common, bottom: (bottom * sign) / common };
}

export const add = (a: Fraction, b: Fraction): Fraction =>
  fraction(a.top * b.bottom + b.top * a.bottom, a.bottom * b.bottom);
export const negate = (a: Fraction): Fraction => ({ top: -a.top, bottom: a.bottom });
export const multiply = (a: Fraction, b: Fraction): Fraction =>
  fraction(a.top * b.top, a.bottom * b.bottom);
export const divide = (a: Fraction, b: Fraction): Fraction =>
  fraction(a.top * b.bottom, a.bottom * b.top);

/** The greatest whole number that is not above it. */
export function floor({ top, bottom }: Fraction): Fraction {
  const whole = top / bottom;
  return { top: top < 0n && whole * bottom !== top ? whole - 1n : whole, bottom: 1n };
}

/** Exactly what the floating-point number is. */
export function fromNumber(value: number): Fraction {
  if (!Number.isFinite(value)) throw new RangeError(`${value} is no number.`);
  let top = value;
  let bottom = 1n;
  while (!Number.isInteger(top)) {
    top *= 2;
    bottom *= 2n;
  }
  return fraction(BigInt(top), bottom);
}

/** The size of what has to be computed with. */
export function bits({ top, bottom }: Fraction): number {
  return Math.max(top.toString(16).length, bottom.toString(16).length) * 4;
}

/** -1, 0 or 1. */
export function compare(a: Fraction, b: Fraction): number {
  const difference = a.top * b.bottom - b.top * a.bottom;
  return difference === 0n ? 0 : difference < 0n ? -1 : 1;
}

function gcd(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a;
}
