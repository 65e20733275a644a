/** Undefined and null are SQL's NULL. */
export function toJson(value: unknown): string | null {
  return value === undefined || value === null ? null : JSON.stringify(value);
}

/** Only for text that this server wrote itself: it is not checked again. */
export function fromJson(text: string | null): unknown {
  return text === null ? null : JSON.parse(text);
}
