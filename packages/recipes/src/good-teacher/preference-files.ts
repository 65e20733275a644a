import { preferenceSchema, readRows, type Preference } from "./preferences.ts";

/** Preferences of a file in UltraFeedback's schema. */
export async function readPreferences(path: string): Promise<Preference[]> {
  return await readRows(path, preferenceSchema);
}
