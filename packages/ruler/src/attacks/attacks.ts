import type { Attack, AttackFamily } from "./attack.ts";
import { authorityAttacks } from "./authority-attacks.ts";
import { disguiseAttacks } from "./disguise-attacks.ts";
import { fakeEndAttacks } from "./fake-end-attacks.ts";
import { forgedAnswerAttacks } from "./forged-answer-attacks.ts";
import { forgedFenceAttacks } from "./forged-fence-attacks.ts";
import { instructionAttacks } from "./instruction-attacks.ts";

export const attacks: readonly Attack[] = [
  ...instructionAttacks,
  ...forgedAnswerAttacks,
  ...forgedFenceAttacks,
  ...fakeEndAttacks,
  ...authorityAttacks,
  ...disguiseAttacks,
];

export const attackFamilies = [
  "instruction",
  "forged-answer",
  "forged-fence",
  "fake-end",
  "authority",
  "disguise",
] as const satisfies readonly AttackFamily[];
