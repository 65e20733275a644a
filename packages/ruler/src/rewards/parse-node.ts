import { once } from "node:events";
import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { HoneError } from "@hone/core";
import type { CodeLanguage, ParsedCode } from "./parsed-code.ts";

/** A parser's time for one text. What people write takes milliseconds. @unit ms */
const mostMs = 2_000;
const mostMemoryMb = 256;

interface Job {
  code: string;
  language: CodeLanguage;
  done: (parsed: ParsedCode) => void;
  failed: (error: unknown) => void;
}

const waiting: Job[] = [];
let thread: Promise<Worker> | null = null;
let busy = false;

/**
 * Parses in another thread, one text after another: some texts of a hundred characters take a parser seconds, and
 * twice as long for each level more. What takes longer than its time, or more memory, is no code.
 */
export function parse(code: string, language: CodeLanguage): Promise<ParsedCode> {
  return new Promise((done, failed) => {
    waiting.push({ code, language, done, failed });
    void work();
  });
}

async function work(): Promise<void> {
  if (busy) return;
  busy = true;
  for (let job = waiting.shift(); job; job = waiting.shift()) {
    try {
      job.done(await parseInThread(job));
    } catch (error) {
      job.failed(error);
    }
  }
  busy = false;
}

async function parseInThread({ code, language }: Job): Promise<ParsedCode> {
  const mine = (thread ??= newThread());
  const worker = await mine;
  const limit = AbortSignal.timeout(mostMs);
  // A program that waits for nothing else waits for this.
  worker.ref();
  try {
    const answer = once(worker, "message", { signal: limit });
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage({ code, language });
    return ((await answer) as [ParsedCode])[0];
  } catch (error) {
    if (thread === mine) thread = null;
    void worker.terminate();
    if (limit.aborted) return { ok: false, problem: `not parsed within ${mostMs} ms` };
    // The thread is out of memory, or its stack burst where no parser could say so.
    return { ok: false, problem: (error as Error).message };
  } finally {
    worker.unref();
  }
}

/** One that ends, or does not start, is in nobody's way: the next text gets another. */
function newThread(): Promise<Worker> {
  const started = startThread();
  const forget = (): void => {
    if (thread === started) thread = null;
  };
  started.then((worker) => worker.once("exit", forget), forget);
  return started;
}

async function startThread(): Promise<Worker> {
  const resourceLimits = { maxOldGenerationSizeMb: mostMemoryMb };
  const worker = import.meta.url.endsWith(".ts")
    ? new Worker(fromSource(), { eval: true, resourceLimits })
    : new Worker(new URL("./syntax-thread.js", import.meta.url), { resourceLimits });
  try {
    await once(worker, "message");
  } catch (cause) {
    throw new HoneError(
      "The thread that parses code did not start. A bundler may have left its file out: keep @hone/ruler external.",
      { code: "invalid_config", cause },
    );
  }
  // Its end is seen by its exit.
  worker.on("error", () => undefined);
  worker.unref();
  return worker;
}

/** In the repository nothing is built: a thread needs the loader that the program itself was started with. */
function fromSource(): string {
  const loader = createRequire(import.meta.url).resolve("tsx/esm/api");
  const file = new URL("./syntax-thread.ts", import.meta.url).href;
  return `require(${JSON.stringify(loader)}).register(); import(${JSON.stringify(file)});`;
}
