import { HoneError } from "@hone/core";
import { Agent, request } from "undici";
import { z } from "zod";
import { probeSchema } from "../ports/live-set.ts";
import { type Trainer, type TrainerEvent, WorkerFault } from "../ports/trainer.ts";
import { readLines } from "./lines.ts";

/** The worker writes a line at least once a second; silence for this long is a hang. */
const defaultSilenceMs = 60_000;
/** A probe is computed between two micro-batches of whatever else is trained. */
const probeTimeoutMs = 300_000;
/** How long the worker may take to notice an abort: one micro-batch. */
const abortGraceMs = 30_000;

const sequencesSchema = z.object({ logprobs: z.array(z.array(z.number())) });
const metricsSchema = z.record(z.string(), z.number().nullable());
const lineSchema = z.discriminatedUnion("event", [
  z.object({ event: z.literal("stage"), stage: z.string(), seconds: z.number() }),
  z.object({
    event: z.literal("microbatch"),
    done: z.int(),
    total: z.int(),
    tokens: z.int(),
  }),
  z.object({ event: z.literal("warning"), message: z.string() }),
  z.object({
    event: z.literal("split"),
    message: z.string().optional(),
    into: z.array(z.array(z.int())),
  }),
  z.object({ event: z.literal("heartbeat") }),
  z.object({
    event: z.literal("result"),
    metrics: metricsSchema,
    files: z.array(z.string()),
    logprobs: z.array(z.array(z.number())).optional(),
  }),
  z.object({
    event: z.literal("error"),
    error: z.object({ message: z.string(), code: z.string().nullish() }),
  }),
]);
const errorBodySchema = z.object({
  error: z.object({ message: z.string(), code: z.string().nullish() }),
});
const objectiveCardSchema = z.object({ name: z.string(), sha256: z.string() });
const filesSchema = z.object({ files: z.array(z.string()) });

export function createTrainerClient(options: {
  baseURL: () => string;
  key: () => string;
  silenceMs?: number | undefined;
  /** The worker hangs: whoever keeps it alive ends it, so that the operation can begin again. */
  onHang?: (() => void) | undefined;
}): Trainer {
  const silenceMs = options.silenceMs ?? defaultSilenceMs;
  // Its silence is measured in lines, not by the HTTP client.
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 1000 });

  function post(
    path: string,
    body: Uint8Array | string,
    signal: AbortSignal,
  ): ReturnType<typeof request> {
    return request(`${options.baseURL()}${path}`, {
      method: "POST",
      dispatcher: agent,
      signal,
      body,
      headers: {
        authorization: `Bearer ${options.key()}`,
        "content-type": typeof body === "string" ? "application/json" : "application/octet-stream",
      },
    });
  }

  async function askToAbort(operationId: string): Promise<void> {
    const path = `/train/${encodeURIComponent(operationId)}/abort`;
    const { body } = await post(path, "{}", AbortSignal.timeout(abortGraceMs));
    await body.dump();
  }

  return {
    async initAdapter({ staging, r, alpha, seed }) {
      const body = JSON.stringify({ staging, lora: { r, alpha }, seed });
      try {
        const response = await post("/adapters", body, AbortSignal.timeout(silenceMs));
        const text = await response.body.text();
        if (response.statusCode >= 400) throw refused(response.statusCode, text);
        return filesSchema.parse(JSON.parse(text)).files;
      } catch (error) {
        throw toTrainError(error);
      }
    },

    async probe(adapter) {
      try {
        const body = JSON.stringify({ adapter });
        const response = await post("/probe", body, AbortSignal.timeout(probeTimeoutMs));
        const text = await response.body.text();
        if (response.statusCode >= 400) throw refused(response.statusCode, text);
        return probeSchema.parse(JSON.parse(text));
      } catch (error) {
        if (!(error instanceof WorkerFault) || error.code !== "bad_adapter")
          throw toTrainError(error);
        throw new HoneError(error.message, { code: "bad_adapter", cause: error });
      }
    },

    async logprobs(adapter, sequences) {
      try {
        const body = JSON.stringify({ adapter, sequences });
        const response = await post("/logprobs", body, AbortSignal.timeout(probeTimeoutMs));
        const text = await response.body.text();
        if (response.statusCode >= 400) throw refused(response.statusCode, text);
        return sequencesSchema.parse(JSON.parse(text)).logprobs;
      } catch (error) {
        throw toTrainError(error);
      }
    },

    async checkObjective({ name, options: ofObjective }) {
      try {
        const body = JSON.stringify({ name, options: ofObjective });
        const response = await post("/objectives", body, AbortSignal.timeout(silenceMs));
        const text = await response.body.text();
        if (response.statusCode >= 400) throw refused(response.statusCode, text);
        return objectiveCardSchema.parse(JSON.parse(text));
      } catch (error) {
        if (!(error instanceof WorkerFault) || error.code !== "bad_config")
          throw toTrainError(error);
        throw new HoneError(error.message, {
          code: "invalid_request",
          param: "op.config.name",
          cause: error,
        });
      }
    },

    async train({ operationId, route = "train", stepData, onEvent, onAccepted, signal }) {
      const hangUp = new AbortController();
      let deadline = setTimeout(() => undefined, 0);
      let heard = false;
      const expectWithin = (ms: number, what: string): void => {
        clearTimeout(deadline);
        heard = false;
        deadline = setTimeout(() => {
          hangUp.abort(hung(what, ms));
          // A worker that still writes lines is busy with a long micro-batch. It must not be ended: it has others' requests.
          if (!heard) options.onHang?.();
        }, ms);
      };
      let aborting = false;
      const onAbort = (): void => {
        aborting = true;
        expectWithin(abortGraceMs, "did not stop");
        // If the worker does not hear the abort, the deadline below ends the request.
        askToAbort(operationId).catch(() => undefined);
      };
      try {
        if (signal.aborted) throw new WorkerFault("aborted", "aborted");
        expectWithin(silenceMs, "said nothing");
        const response = await post(`/${route}`, stepData, hangUp.signal);
        if (response.statusCode >= 400) {
          throw refused(response.statusCode, await response.body.text());
        }
        onAccepted();
        // Only now does the worker know the operation that an abort names.
        if (signal.aborted) onAbort();
        else signal.addEventListener("abort", onAbort, { once: true });
        for await (const line of readLines(response.body)) {
          heard = true;
          if (!aborting) expectWithin(silenceMs, "said nothing");
          const event = lineSchema.parse(JSON.parse(line));
          if (event.event === "result") {
            const { metrics, files, logprobs } = event;
            return { metrics, files, logprobs };
          }
          if (event.event === "error") {
            throw new WorkerFault(event.error.message, event.error.code ?? null);
          }
          if (event.event !== "heartbeat") onEvent(event satisfies TrainerEvent);
        }
        throw new HoneError("The worker closed the connection before it had a result.", {
          code: "worker_unavailable",
        });
      } catch (error) {
        if (signal.aborted) throw abortedError(error);
        throw toTrainError(hangUp.signal.aborted ? hangUp.signal.reason : error);
      } finally {
        clearTimeout(deadline);
        signal.removeEventListener("abort", onAbort);
        hangUp.abort();
      }
    },
  };
}

/** A worker that hangs is treated as one that died: it is started anew, and its operation is redone. */
function hung(what: string, ms: number): HoneError {
  return new HoneError(`The worker ${what} for ${ms / 1000} s and is restarted.`, {
    code: "worker_unavailable",
  });
}

function refused(status: number, text: string): WorkerFault {
  let body: unknown = null;
  try {
    body = JSON.parse(text);
  } catch {
    // The body could not be read, so the message has nothing but the status.
  }
  const parsed = errorBodySchema.safeParse(body);
  return parsed.success
    ? new WorkerFault(parsed.data.error.message, parsed.data.error.code ?? null)
    : new WorkerFault(`The worker answered with status ${status}.`, null);
}

function abortedError(cause: unknown): HoneError {
  return new HoneError("The operation was aborted. Nothing of it was kept.", {
    code: "aborted",
    cause,
  });
}

function toTrainError(error: unknown): HoneError {
  if (HoneError.isInstance(error)) return error;
  if (error instanceof WorkerFault) {
    if (error.code === "aborted") return abortedError(error);
    if (error.code === "disk_full") {
      return new HoneError(error.message, { code: "disk_full", cause: error });
    }
    const code = error.code === null ? "" : ` (${error.code})`;
    return new HoneError(`${error.message}${code}`, { code: "train_failed", cause: error });
  }
  if (error instanceof z.ZodError || error instanceof SyntaxError) {
    return new HoneError("The worker answered with something that is not its contract.", {
      code: "train_failed",
      cause: error,
    });
  }
  // Everything else is the connection: refused, reset, closed.
  return new HoneError("The worker died, or is not there. It is being restarted.", {
    code: "worker_unavailable",
    cause: error,
  });
}
