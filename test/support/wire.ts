import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { expect } from "vitest";

/** One choice as the engine sent it: the truth that the ledger and the batch have to repeat. */
export interface Sampled {
  policy: number;
  prompt: number[];
  ids: number[];
  logprobs: number[];
}

/** A completion of a batch as the worker got it, its prompt put together from its parents. */
export type Trained = Sampled;

export interface Wire {
  /** Every choice that an engine has sent since. */
  sampled(): Sampled[];
  /** Every batch that was sent to be trained since: the completions of it that train. */
  batches(): Trained[][];
  close(): void;
}

interface Exchange {
  path: string;
  sent: Uint8Array[];
  received: Uint8Array[];
}
interface Message {
  request: { path: string };
  chunk: Uint8Array | string;
}

const sentChannel = "undici:request:bodyChunkSent";
const receivedChannel = "undici:request:bodyChunkReceived";

/**
 * Reads what goes over the server's sockets to engine and worker, at the HTTP client. Neither end knows:
 * what lies between the two (driver, gateway, ledger, database, filter, batch) is all under test.
 */
export function recordWire(): Wire {
  const exchanges = new Map<object, Exchange>();
  const listen = (side: "sent" | "received") => (message: unknown) => {
    const { request, chunk } = message as Message;
    if (request.path !== "/v1/completions" && request.path !== "/train") return;
    const known = exchanges.get(request) ?? { path: request.path, sent: [], received: [] };
    exchanges.set(request, known);
    // A copy: the client's buffers are used again.
    known[side].push(Buffer.from(chunk as Uint8Array));
  };
  const onSent = listen("sent");
  const onReceived = listen("received");
  subscribe(sentChannel, onSent);
  subscribe(receivedChannel, onReceived);
  const to = (path: string): Exchange[] =>
    [...exchanges.values()].filter((exchange) => exchange.path === path);
  return {
    sampled: () => to("/v1/completions").filter(isAnswer).flatMap(readAnswer),
    batches: () => to("/train").map(({ sent }) => readBatch(Buffer.concat(sent))),
    close() {
      unsubscribe(sentChannel, onSent);
      unsubscribe(receivedChannel, onReceived);
    },
  };
}

/**
 * Fails unless every trained completion is one that an engine sent: the same policy, prompt, ids and, as
 * float32, logprobs, each answer at most once. Returns the answers that no batch holds.
 */
export function expectTrainedWereSampled(
  batches: readonly Trained[][],
  sampled: readonly Sampled[],
): Sampled[] {
  const left = new Map<string, Sampled[]>();
  for (const answer of sampled) {
    left.set(keyOf(answer), [...(left.get(keyOf(answer)) ?? []), answer]);
  }
  for (const trained of batches.flat()) {
    const alike = left.get(keyOf(trained)) ?? [];
    if (alike.length === 0) {
      const near = sampled.filter(({ prompt }) => prompt.join() === trained.prompt.join());
      expect(near, "what the engine sent for the prompt of a trained completion").toContainEqual(
        trained,
      );
      expect.fail(`trained twice: ${keyOf(trained)}`);
    }
    alike.pop();
  }
  return [...left.values()].flat();
}

function keyOf({ policy, prompt, ids, logprobs }: Sampled): string {
  return [policy, prompt.join(), ids.join(), logprobs.map(Math.fround).join()].join(" | ");
}

interface Choice {
  index: number;
  token_ids?: number[] | null;
  logprobs?: { token_logprobs: number[] } | null;
}

/** A whole answer is one JSON body, a streamed one a body of such in `data:` lines. */
/** A publication's probe is nobody's answer: it alone asks how likely its prompt is. */
function isAnswer({ sent }: Exchange): boolean {
  return !("prompt_logprobs" in (JSON.parse(Buffer.concat(sent).toString()) as object));
}

function readAnswer({ sent, received }: Exchange): Sampled[] {
  const asked = JSON.parse(Buffer.concat(sent).toString()) as { model: string; prompt: number[] };
  const text = Buffer.concat(received).toString();
  const bodies = text.startsWith("{")
    ? [text]
    : text
        .split("\n")
        .filter((line) => line.startsWith("data: {"))
        .map((line) => line.slice("data: ".length));
  const choices = new Map<number, Sampled>();
  for (const body of bodies) {
    for (const choice of (JSON.parse(body) as { choices?: Choice[] }).choices ?? []) {
      const known = choices.get(choice.index) ?? {
        policy: Number(asked.model.split("@")[1] ?? 0),
        prompt: asked.prompt,
        ids: [],
        logprobs: [],
      };
      known.ids.push(...(choice.token_ids ?? []));
      known.logprobs.push(...(choice.logprobs?.token_logprobs ?? []).map(Math.fround));
      choices.set(choice.index, known);
    }
  }
  return [...choices.values()];
}

/** By the format's own definition, not by the code that wrote it. */
function readTensors(file: Buffer): (name: string) => number[] {
  const headerBytes = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const view = new DataView(file.buffer, file.byteOffset + 8 + headerBytes);
  const readers: Record<string, [number, (at: number) => number]> = {
    U8: [1, (at) => view.getUint8(at)],
    I32: [4, (at) => view.getInt32(at, true)],
    F32: [4, (at) => view.getFloat32(at, true)],
    I64: [8, (at) => Number(view.getBigInt64(at, true))],
  };
  return (name) => {
    const entry = header[name];
    const reader = readers[entry?.dtype ?? ""];
    if (!entry || !reader) throw new Error(`The batch has no tensor ${name} that can be read.`);
    const [size, read] = reader;
    const [from, to] = entry.data_offsets;
    return Array.from({ length: (to - from) / size }, (_, i) => read(from + i * size));
  };
}

function readBatch(file: Buffer): Trained[] {
  const tensor = readTensors(file);
  const [tokens, mask, logprobs] = ["tokens", "sampled", "logprobs"].map(tensor) as [
    number[],
    number[],
    number[],
  ];
  const offsets = tensor("completion_offsets");
  const policies = tensor("completion_policy");
  const trainable = tensor("completion_trainable");
  const rollouts = tensor("completion_rollout");
  const trainableRollouts = tensor("rollout_trainable");
  const sequences: number[][] = [];
  const trained: Trained[] = [];
  tensor("completion_parent").forEach((parent, completion) => {
    const [from, to] = [offsets[completion] ?? 0, offsets[completion + 1] ?? 0];
    const before = sequences[parent] ?? [];
    sequences.push([...before, ...tokens.slice(from, to)]);
    if (!trainable[completion] || !trainableRollouts[rollouts[completion] ?? 0]) return;
    // The mask alone says where the answer begins.
    const first = mask.indexOf(1, from);
    trained.push({
      policy: policies[completion] ?? -1,
      prompt: [...before, ...tokens.slice(from, first)],
      ids: tokens.slice(first, to).filter((_, i) => mask[first + i] === 1),
      logprobs: logprobs.slice(first, to),
    });
  });
  return trained;
}
