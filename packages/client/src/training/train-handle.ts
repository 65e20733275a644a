import { setTimeout as delay } from "node:timers/promises";
import { HoneError, isErrorCode, operationInfoSchema } from "@hone/core";
import type {
  OperationEvent,
  OperationInfo,
  OperationResult,
  SubmitOperation,
  TrainResult,
} from "@hone/core";
import { abortError, followOperation, throwIfAborted, unlessAborted } from "@hone/transport";
import type { Transport } from "@hone/transport";
import type { LimitFunction } from "p-limit";

/**
 * A training step under way. Iterate over it to read its events, as often as you like: each reader gets all events
 * from the first on. Await `result` for the end of the step.
 */
export interface TrainHandle<Result = TrainResult> extends AsyncIterable<OperationEvent> {
  /** Names the step. If you submit the same token again, you get the same step. */
  readonly clientToken: string;
  readonly result: Promise<Result>;
  /** Asks the server to end the operation. `result` then rejects with code `aborted`. */
  abort(): Promise<void>;
}

/** How long an aborted step waits for the server to hear of it. */
const abandonLimitMs = 5_000;

export interface SubmitContext<Result> {
  transport: Transport;
  model: string;
  submission: SubmitOperation;
  signal: AbortSignal | undefined;
  onEvent: ((event: OperationEvent) => void) | undefined;
  /** Submissions under one limit arrive one after another. @default at once */
  inOrder?: LimitFunction | undefined;
  /** Of the results that this operation can have. */
  types: readonly OperationResult["type"][];
  /** Gets the result before the caller does, and gives what the caller gets. */
  onResult: (result: Result) => Result;
}

export function startOperation<Result extends OperationResult>(
  context: SubmitContext<Result>,
): TrainHandle<Result> {
  const log = new EventLog();
  const { inOrder } = context;
  const submitted = inOrder ? inOrder(() => submit(context)) : submit(context);
  const result = run(context, submitted, log);
  // Who only iterates must not be killed by an unhandled rejection: the iteration throws it too.
  result.catch(() => {});
  return {
    clientToken: context.submission.clientToken,
    result,
    async abort() {
      const operation = await submitted;
      await abortOperation(context.transport, operation.id);
      await result.catch(() => {});
    },
    [Symbol.asyncIterator]: () => log.read(),
  };
}

/** The request is not cut off by the signal: it may have arrived, and then the operation's id is needed to end it. */
async function submit({
  transport,
  model,
  submission,
  signal,
}: Pick<SubmitContext<never>, "transport" | "model" | "submission" | "signal">) {
  throwIfAborted(signal);
  return await transport.json("POST", `/v1/models/${model}/operations`, operationInfoSchema, {
    body: submission,
  });
}

async function run<Result extends OperationResult>(
  { transport, signal, onEvent, onResult, types }: SubmitContext<Result>,
  submitted: Promise<OperationInfo>,
  log: EventLog,
): Promise<Result> {
  // The signal ends the waiting below; the server has to hear of it on its own.
  const told: Promise<unknown>[] = [];
  const abandon = () => {
    const abort = submitted.then((operation) => abortOperation(transport, operation.id));
    told.push(abort.catch(() => undefined));
  };
  signal?.addEventListener("abort", abandon, { once: true });
  try {
    const operation = await unlessAborted(submitted, signal);
    let ended: OperationInfo | null = null;
    for await (const event of followOperation(transport, operation.id, { signal })) {
      log.push(event);
      onEvent?.(event);
      if (event.type === "ended") ended = event.operation;
    }
    if (!ended) throw signal?.aborted ? abortError(signal) : noEnd();
    const result = onResult(resultOf(ended, types) as Result);
    log.end(null);
    return result;
  } catch (error) {
    // A program may end as soon as it hears of the abort: the server hears of it first, if it can.
    const late = delay(abandonLimitMs, undefined, { ref: false });
    await Promise.race([Promise.all(told), late]);
    log.end({ error });
    throw error;
  } finally {
    signal?.removeEventListener("abort", abandon);
  }
}

async function abortOperation(transport: Transport, operationId: string): Promise<void> {
  await transport.json("POST", `/v1/operations/${operationId}/abort`, operationInfoSchema, {
    body: {},
  });
}

function resultOf(
  operation: OperationInfo,
  types: readonly OperationResult["type"][],
): OperationResult {
  const { result } = operation;
  if (operation.status === "succeeded" && result && types.includes(result.type)) {
    return result;
  }
  const { error } = operation;
  const code = isErrorCode(error?.code) ? error.code : "train_failed";
  throw new HoneError(
    error?.message ?? `Operation ${operation.id} ended as ${operation.status} and says no reason.`,
    { code: operation.status === "aborted" ? "aborted" : code, param: error?.param ?? undefined },
  );
}

function noEnd(): HoneError {
  return new HoneError("The operation's events ended without its end.", {
    code: "invalid_response",
  });
}

/** Keeps the events, so that a reader who comes late misses none. */
class EventLog {
  readonly #events: OperationEvent[] = [];
  readonly #waiting = new Set<() => void>();
  #end: { error?: unknown } | null = null;

  push(event: OperationEvent): void {
    this.#events.push(event);
    this.#wake();
  }

  end(failure: { error: unknown } | null): void {
    this.#end = failure ?? {};
    this.#wake();
  }

  async *read(): AsyncGenerator<OperationEvent, void, undefined> {
    for (let next = 0; ;) {
      const event = this.#events[next];
      if (event) {
        next += 1;
        yield event;
      } else if (this.#end) {
        if ("error" in this.#end) throw this.#end.error;
        return;
      } else {
        await new Promise<void>((resolve) => this.#waiting.add(resolve));
      }
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
