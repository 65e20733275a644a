import { z } from "zod";

const failureSchema = z.object({
  error: z.object({ message: z.string(), code: z.string().nullish(), param: z.string().nullish() }),
});

/** Undefined where a child's answer is not JSON: no schema takes that. */
export function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What renderer and worker say of a failure, in their envelope; undefined where they said nothing in it. */
export function failureOf(text: string): z.infer<typeof failureSchema>["error"] | undefined {
  return failureSchema.safeParse(parseAnswer(text)).data?.error;
}
