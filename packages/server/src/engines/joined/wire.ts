import { engineNameSchema } from "@hone/core";
import { z } from "zod";
import { bucketMissSchema } from "../bucket/bucket-miss.ts";
import { probeAnswerSchema, probeSchema, sha256Schema } from "../../ports/live-set.ts";

/**
 * What an engine on another machine and the server say to each other. Every request comes from the engine's
 * sidecar but traffic, which goes the other way. Both ends are of one version of Hone: unknown fields are refused.
 */
export const enginePaths = {
  /** Everything below it is for engines alone, with keys that open nothing else. */
  prefix: "/engine/",
  /** `POST`, with a join token in place of a key; again with the key that it brought, where the answer was lost. */
  join: "/engine/join",
  /** `GET`: what the server serves. */
  base: "/engine/base",
  /** `POST`, each time that the sidecar has started, and where the server has forgotten it. */
  announce: "/engine/announce",
  /** `GET`: the adapters to serve, once they are others than at `after`, or after `longestPollMs`. */
  live: "/engine/live",
  /** `GET /engine/adapters/<sha256>`: the bytes of `adapter_model.safetensors`; `…/bucket`: where a bucket has them. */
  adapters: "/engine/adapters",
  /** `POST`: what is served now. */
  report: "/engine/report",
  /** `POST`: nothing new is wanted; answers how much is under way. */
  drain: "/engine/drain",
  /** `POST`: it is gone for good, and its key is worth nothing from now on. */
  leave: "/engine/leave",
} as const;

export const longestPollMs = 10_000;
/** The limit of a request's body. @unit bytes */
export const engineBodyLimit = 4 * 1024 * 1024;

const policySchema = z.string().min(1).max(512);

/** What both sides have to agree on before an adapter of one fits the other. */
export const servedBaseSchema = z.strictObject({
  name: z.string().min(1).max(512),
  dtype: z.enum(["float32", "bfloat16"]),
  quantize: z.enum(["nf4"]).nullable(),
  /** Of the base's files (`base-fingerprint.ts`); null where they are not in a folder of this machine. */
  fingerprint: sha256Schema.nullable(),
  /** The longest sequence that is asked for. @unit tokens */
  maxModelLen: z.int().min(1),
  /** The highest rank of the models that there are; 0 without any. */
  rank: z.int().min(0),
  /** How many policies an engine should sample from at a time. */
  slots: z.int().min(1),
});
export type ServedBaseOnWire = z.infer<typeof servedBaseSchema>;

/** Chosen by the sidecar, which so has it before the server says yes: an answer that is lost costs nothing. */
const engineKeySchema = z.string().regex(/^hone_engine_[\w-]{43}$/);
export const joinSchema = z.strictObject({
  name: engineNameSchema.optional(),
  /** What it wants to be let in by from then on. */
  key: engineKeySchema,
});
export const joinedSchema = z.strictObject({ name: engineNameSchema });
export type Joined = z.infer<typeof joinedSchema>;

/** What all adapters are of. */
const baseIdentitySchema = servedBaseSchema.pick({ name: true, fingerprint: true });
export type BaseIdentity = z.infer<typeof baseIdentitySchema>;

/** Whether they may be the same. One that nobody has the files of is known by its name alone. */
export function isSameBase(a: BaseIdentity, b: BaseIdentity): boolean {
  const bothKnown = a.fingerprint !== null && b.fingerprint !== null;
  return a.name === b.name && (!bothKnown || a.fingerprint === b.fingerprint);
}

export const announceSchema = z.strictObject({
  /** Of this start of the sidecar. */
  boot: z.uuid(),
  /** Where the server reaches it, without `/v1`. */
  url: z.url({ protocol: /^https?$/ }).max(2048),
  /** What the sidecar lets the server in by: made at each start, and kept in memory alone. */
  key: z.string().regex(/^[\w-]{43}$/),
  base: baseIdentitySchema,
  /** @unit tokens */
  maxModelLen: z.int().min(1),
  /** The highest rank that it takes; null where that is unknown. */
  maxRank: z.int().min(1).nullable(),
  /** How many sequences it batches (`--max-num-seqs`); null where that is unknown. */
  maxSequences: z.int().min(1).nullable(),
});
export type Announcement = z.infer<typeof announceSchema>;

export const liveQuerySchema = z.strictObject({
  boot: z.uuid(),
  after: z.coerce.number().pipe(z.int().min(0)),
});

const wantedAdapterSchema = z.strictObject({
  policy: policySchema,
  sha256: sha256Schema,
  /** Which time it was asked for: another number wants it loaded and probed anew. */
  asked: z.int().min(0),
  /** @unit bytes */
  bytes: z.int().min(1),
  rank: z.int().min(1),
  /** The text of `adapter_config.json`. */
  config: z.string().max(65_536),
  /** What the engine has to answer with it. */
  probe: probeSchema.optional(),
  /** A bucket has the weights, too. */
  inBucket: z.literal(true).optional(),
});
export type WantedAdapter = z.infer<typeof wantedAdapterSchema>;
/** What of it lies on a disk. */
export type WantedFiles = Omit<WantedAdapter, "asked">;

/** Where the bucket lets the weights be read, for a short time; null where it does not have them any more. */
export const bucketURLSchema = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .max(8192)
    .nullable(),
});

export type BucketURL = z.infer<typeof bucketURLSchema>;

/** Asks for weights, and says why they did not come from the bucket. */
export const adapterQuerySchema = z.strictObject({ bucket: bucketMissSchema.optional() });

/** Not `known`: the server has started anew or has given the engine up, and it has to be announced again. */
export const liveAnswerSchema = z.discriminatedUnion("known", [
  z.strictObject({ known: z.literal(false) }),
  z.strictObject({
    known: z.literal(true),
    /** Grows with each change, also over starts of the server. */
    generation: z.int().min(0),
    /** Adapters of another base than the engine's are refused. */
    base: baseIdentitySchema,
    /** What an engine's logprobs may differ by from the probe's; null where that follows from the base's type. */
    probeTolerance: z.number().positive().nullable(),
    adapters: z.array(wantedAdapterSchema),
  }),
]);
export type LiveAnswer = z.infer<typeof liveAnswerSchema>;

export const reportSchema = z.strictObject({
  boot: z.uuid(),
  /** Which set of adapters this is about. */
  generation: z.int().min(0),
  /** Whether the engine behind the sidecar answers. */
  ready: z.boolean(),
  served: z
    .array(
      z.strictObject({
        policy: policySchema,
        sha256: sha256Schema,
        /** For which time it was loaded. */
        asked: z.int().min(0),
        /** What the engine answered to its probe since then, whatever the sidecar thinks of it; null without a probe. */
        answer: probeAnswerSchema.nullable(),
      }),
    )
    .max(10_000),
  refused: z
    .array(
      z.strictObject({
        policy: policySchema,
        sha256: sha256Schema,
        /** Whether the adapter is at fault, or the engine that could not do what it was asked. */
        fault: z.enum(["adapter", "engine"]),
        /** What is wrong, in words. */
        reason: z.string().max(2_000),
      }),
    )
    .max(10_000),
});
export type Report = z.infer<typeof reportSchema>;

export const knownSchema = z.strictObject({ known: z.boolean() });
export const drainSchema = z.strictObject({ boot: z.uuid() });
/** Requests that the server has under way on it. */
export const drainingSchema = z.strictObject({ inFlight: z.int().min(0) });
