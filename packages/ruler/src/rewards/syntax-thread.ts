import { parentPort } from "node:worker_threads";
import { parseHere } from "./parse-here.ts";
import type { CodeLanguage } from "./parsed-code.ts";

/** A thread of its own for parsers: see parse-node.ts. */
parentPort?.on("message", ({ code, language }: { code: string; language: CodeLanguage }) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(parseHere(code, language));
});
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
parentPort?.postMessage("ready");
