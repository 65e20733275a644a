import { z } from "zod";
import { errorCodes, type ErrorCode } from "./errors.ts";

/** Codes that a response carries; those with status 0 are raised on the client's side only. */
export const wireErrorCodes = Object.entries(errorCodes)
  .filter(([, { status }]) => status > 0)
  .map(([code]) => code as ErrorCode);

/** `{error: {message, type, code, param}}`, as OpenAI sends it. */
export const errorEnvelopeSchema = z.object({
  error: z.object({
    /** What happened, and what to do next. */
    message: z.string(),
    type: z.string(),
    code: z.enum(wireErrorCodes).nullable(),
    /** The request's field that is wrong, as a path: `messages[2].content`. */
    param: z.string().nullable(),
  }),
});
