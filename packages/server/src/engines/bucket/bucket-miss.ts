import { z } from "zod";

/** Why weights did not come from the bucket: not there, other bytes, not allowed, or no answer. */
export const bucketMissSchema = z.enum(["missing", "damaged", "refused", "unreachable"]);
export type BucketMiss = z.infer<typeof bucketMissSchema>;
