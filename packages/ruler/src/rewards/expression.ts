import { add, bits, compare, divide, floor, fraction, multiply, negate } from "./fraction.ts";
import type { Fraction } from "./fraction.ts";

export interface EvaluatedExpression {
  value: Fraction;
  /** The numbers that stand in it, in order; below zero where a sign of their own stands before them. */
  numbers: Fraction[];
}

const longest = 2000;
const deepest = 200;
/** Of any number on the way; 9 ** 9 ** 9 ends here, before anything is computed. */
const mostBits = 4096;

class ExpressionError extends Error {}

/**
 * Evaluates arithmetic in Python's grammar: numbers, + - * / // **, parentheses. Exact, in bounded time
 * and space. Null where the text is anything else, divides by zero, or grows beyond 4096 bits;
 * a power needs a whole exponent.
 */
export function evaluateExpression(text: string): EvaluatedExpression | null {
  if (text.length > longest) return null;
  try {
    const parser = new Parser(text.trim());
    const value = parser.expression(0);
    parser.end();
    return { value, numbers: parser.numbers };
  } catch (error) {
    if (error instanceof ExpressionError || error instanceof RangeError) return null;
    throw error;
  }
}

class Parser {
  readonly numbers: Fraction[] = [];
  readonly #text: string;
  #at = 0;
  /** Within parentheses lines may end. */
  #open = 0;

  constructor(text: string) {
    this.#text = text;
  }

  end(): void {
    this.#space();
    if (this.#at < this.#text.length) throw new ExpressionError("Text is left.");
  }

  expression(depth: number): Fraction {
    if (depth > deepest) throw new ExpressionError("Too deep.");
    let value = this.#term(depth);
    for (;;) {
      if (this.#take("+")) value = bounded(add(value, this.#term(depth)));
      else if (this.#take("-")) value = bounded(add(value, negate(this.#term(depth))));
      else return value;
    }
  }

  #term(depth: number): Fraction {
    let value = this.#signed(depth);
    for (;;) {
      if (this.#peek("**")) return value;
      if (this.#take("//")) value = floor(divide(value, this.#signed(depth)));
      else if (this.#take("*")) value = bounded(multiply(value, this.#signed(depth)));
      else if (this.#take("/")) value = bounded(divide(value, this.#signed(depth)));
      else return value;
    }
  }

  /** A sign binds less than a power on its right: -2 ** 2 is -4. */
  #signed(depth: number): Fraction {
    if (depth > deepest) throw new ExpressionError("Too deep.");
    if (this.#take("-")) return this.#negated(depth + 1);
    if (this.#take("+")) return this.#signed(depth + 1);
    const base = this.#atom(depth);
    return this.#take("**") ? power(base, this.#signed(depth + 1)) : base;
  }

  #negated(depth: number): Fraction {
    const from = this.numbers.length;
    const value = this.#signed(depth);
    const negative = negate(value);
    const [number] = this.numbers.slice(from);
    // Of one number, and not of what came of several.
    const isItsOwn = number && this.numbers.length === from + 1 && compare(number, value) === 0;
    if (isItsOwn && number.top > 0n) this.numbers[from] = negative;
    return negative;
  }

  #atom(depth: number): Fraction {
    if (this.#take("(")) {
      this.#open += 1;
      const value = this.expression(depth + 1);
      if (!this.#take(")")) throw new ExpressionError("A parenthesis is open.");
      this.#open -= 1;
      return value;
    }
    this.#space();
    const match = /^(?:\d+\.\d*|\.\d+|\d+)/.exec(this.#text.slice(this.#at, this.#at + longest));
    const literal = match?.[0] ?? "";
    // Python has no whole numbers with leading zeros, nor names or further digits behind a number.
    if (!literal || /^0+[1-9]\d*$/.test(literal)) throw new ExpressionError("No number.");
    this.#at += literal.length;
    const [whole = "", decimals = ""] = literal.split(".");
    const value = bounded(fraction(BigInt(whole + decimals), 10n ** BigInt(decimals.length)));
    this.numbers.push(value);
    return value;
  }

  #peek(token: string): boolean {
    this.#space();
    return this.#text.startsWith(token, this.#at);
  }

  #take(token: string): boolean {
    if (!this.#peek(token)) return false;
    this.#at += token.length;
    return true;
  }

  #space(): void {
    const space = this.#open > 0 ? " \t\f\r\n" : " \t\f";
    while (this.#at < this.#text.length && space.includes(this.#text[this.#at] as string)) {
      this.#at += 1;
    }
  }
}

function power(base: Fraction, exponent: Fraction): Fraction {
  if (exponent.bottom !== 1n) throw new ExpressionError("A root.");
  const size = exponent.top < 0n ? -exponent.top : exponent.top;
  const trivial = base.bottom === 1n && base.top >= -1n && base.top <= 1n;
  // What the result would need is known before it is computed.
  if (!trivial && size * BigInt(bits(base)) > BigInt(mostBits * 4)) {
    throw new ExpressionError("Too large.");
  }
  const times = trivial ? size % 2n || (size === 0n ? 0n : 2n) : size;
  const raised = fraction(base.top ** times, base.bottom ** times);
  return bounded(exponent.top < 0n ? divide(fraction(1n), raised) : raised);
}

function bounded(value: Fraction): Fraction {
  if (bits(value) > mostBits) throw new ExpressionError("Too large.");
  return value;
}
