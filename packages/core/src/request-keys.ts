import { z } from "zod";

/** A key that is accepted and changes nothing about what is sampled. */
export const ignored = z.unknown().optional();

/** A key that is refused with a word on what to do instead. */
export const refused = (instead: string) =>
  z.null({ error: `is not supported. ${instead}` }).optional();
