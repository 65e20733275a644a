import { z } from "zod";

const failureSchema = z.object({
  error: z.object({ message: z.string(), code: z.string().nullish(), param: z.string().nullish() }),
});

/** The JSON of a child's response; undefined if it is none, which no schema accepts. */
export function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The failure that renderer or worker reported in their envelope; undefined if there is none. */
export function failureOf(text: string): z.infer<typeof failureSchema>["error"] | undefined {
  return failureSchema.safeParse(parseAnswer(text)).data?.error;
}
