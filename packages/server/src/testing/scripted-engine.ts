import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { AssistantMessage } from "@hone/core";
import type { Engine, EngineChunk, EngineRequest } from "../ports/engine.ts";
import type { Renderer } from "../ports/renderer.ts";

/** What the engine shall say; it fails where nothing is left to say. */
interface Line {
  answer: Omit<AssistantMessage, "role">;
  /** Milliseconds between tokens. */
  paceMs?: number | undefined;
  /** After so many tokens it says nothing more until it is given up by the caller. */
  holds?: number | undefined;
  /** Throws this after so many tokens. */
  dies?: { after: number; error: Error } | undefined;
  /** A stop string ended it: the engine's text ends here, the ids run on. */
  visible?: string | undefined;
  /** Leaves out the closing token, as an answer cut by its length does. */
  cut?: boolean | undefined;
}

export interface ScriptedEngine extends Engine {
  readonly lines: Line[];
  readonly requests: EngineRequest[];
  /** Tokens that it has said. */
  said: number;
  /** Requests that were given up by the caller. */
  aborted: number;
}

/** Says given answers in the real renderer's token ids, where a tiny model would call no tool. */
export function createScriptedEngine(renderer: Renderer): ScriptedEngine {
  const lines: Line[] = [];
  const requests: EngineRequest[] = [];
  const engine: ScriptedEngine = {
    kind: "embedded",
    lines,
    requests,
    said: 0,
    aborted: 0,
    info: async () => ({ base: "base", maxModelLen: 8192 }),
    load: async () => {},
    unload: async () => {},
    served: async () => new Map([["m@1", "/policies/1"]]),
    async *generate(request) {
      requests.push(request);
      for (let index = 0; index < request.n; index++) {
        const line = lines.shift();
        if (!line) throw new Error("the script has no line for this request");
        try {
          for await (const chunk of say(renderer, request, line, index)) {
            engine.said += chunk.tokenIds.length;
            yield chunk;
          }
        } finally {
          if (request.signal.aborted) engine.aborted++;
        }
      }
    },
  };
  return engine;
}

async function givenUp(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

async function* say(
  renderer: Renderer,
  request: EngineRequest,
  line: Line,
  index: number,
): AsyncGenerator<EngineChunk> {
  const question = [{ role: "user" as const, content: "?" }];
  const before = (await renderer.render(question, null)).length;
  const whole = await renderer.render([...question, { role: "assistant", ...line.answer }], null);
  const ids = whole.slice(before, line.cut || line.visible !== undefined ? -2 : -1);
  const { stopTokenIds } = await renderer.info();
  const texts = (await renderer.tokens(ids)).map(({ token }, i) =>
    stopTokenIds.includes(ids[i]!) ? "" : token,
  );
  const finish = line.cut ? ("length" as const) : ("stop" as const);
  const logprobs = ids.map((_, i) => -0.01 * (i + 1));
  if (line.visible !== undefined) {
    yield { index, text: line.visible, tokenIds: ids, logprobs, finishReason: finish };
    return;
  }
  if (!request.stream && !line.dies && line.holds === undefined) {
    if (line.paceMs) await delay(line.paceMs * ids.length, undefined, { signal: request.signal });
    yield { index, text: texts.join(""), tokenIds: ids, logprobs, finishReason: finish };
    return;
  }
  for (const [i, id] of ids.entries()) {
    if (line.dies && i === line.dies.after) throw line.dies.error;
    if (i === line.holds) await givenUp(request.signal);
    if (line.paceMs) await delay(line.paceMs, undefined, { signal: request.signal });
    request.signal.throwIfAborted();
    yield {
      index,
      text: texts[i]!,
      tokenIds: [id],
      logprobs: [logprobs[i]!],
      finishReason: i === ids.length - 1 ? finish : null,
    };
  }
}
