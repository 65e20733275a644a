import { mulberry32 } from "@hone/core";

/** A number from 0 to 1 that a seed and a scenario have, in every epoch and every start of a run. */
export function coinOf(seed: number, scenario: unknown): number {
  return mulberry32(hashOf(`${seed} ${stable(scenario)}`))();
}

/** FNV-1a of the text's UTF-16 units. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  }
  return hash >>> 0;
}

/** JSON with the keys of objects in order: the same scenario may have been written in another one. */
export function stable(value: unknown): string {
  return (
    JSON.stringify(value, (_, inner: unknown) =>
      typeof inner === "object" && inner !== null && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    ) ?? "undefined"
  );
}
