/** What kind of trick an attack is. */
export type AttackFamily =
  | "instruction"
  | "forged-answer"
  | "forged-fence"
  | "fake-end"
  | "authority"
  | "disguise";

/** Text in a trajectory that tries to raise its score. */
export interface Attack {
  /** `family/name` */
  id: string;
  family: AttackFamily;
  text: string;
}

export function family(
  name: AttackFamily,
  texts: Readonly<Record<string, string>>,
): readonly Attack[] {
  return Object.entries(texts).map(([id, text]) => ({ id: `${name}/${id}`, family: name, text }));
}

/** What an attacker who has read this package would guess: the right shapes, with a key of its own. */
export const guessedKey = "4f1c0a9e7b23d586";
export const guessedId = "9d3b71c2";
