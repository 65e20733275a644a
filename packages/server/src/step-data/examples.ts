import {
  type ChatMessage,
  type ChatTool,
  type Conversation,
  type DropReason,
  HoneError,
} from "@hone/core";
import { fullPrompt, makePrompt } from "../conversation/prompt.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import type { Renderer } from "../ports/renderer.ts";
import { masksOf, sequenceLengths, withAncestors } from "./filter.ts";
import type { StepCompletion } from "./step-data.ts";

/** Which messages of an example train: those of the assistant, its last one, or every token. */
export type TrainOn = "assistant" | "last_assistant" | "all";

/** An example as a step trains it. */
export interface StepExample {
  /** Parents first. */
  completions: readonly StepCompletion[];
  /** Ids of those whose answers train; the others are context. */
  trained: ReadonlySet<string>;
}

/**
 * A completion as it is stored with the operation: a redone step trains the same ids, whatever the renderer says then.
 * The ids of all of them stand in one array, one after the other.
 */
export interface StoredCompletion {
  id: string;
  parentId: string | null;
  /** How many ids come before its answer, and how many the answer has. */
  prompt: number;
  answer: number;
}

export function stored(completions: readonly StepCompletion[]): {
  completions: StoredCompletion[];
  tokens: Int32Array;
} {
  const lengths = completions.map(
    ({ promptSuffix, sampled }) => promptSuffix.length + sampled.length,
  );
  const tokens = new Int32Array(lengths.reduce((total, length) => total + length, 0));
  let at = 0;
  const told = completions.map(({ id, parentId, promptSuffix, sampled }) => {
    for (const part of [promptSuffix, sampled]) {
      tokens.set(part, at);
      at += part.length;
    }
    return { id, parentId, prompt: promptSuffix.length, answer: sampled.length };
  });
  return { completions: told, tokens };
}

export function restored(
  completions: readonly StoredCompletion[],
  tokens: Int32Array,
): StepCompletion[] {
  let at = 0;
  const next = (length: number): Int32Array => tokens.subarray(at, (at += length));
  return completions.map(({ id, parentId, prompt, answer }) =>
    unsampled({ id, parentId, promptSuffix: next(prompt), sampled: next(answer) }),
  );
}

/** Of no policy: nobody's logprobs correct the loss, and none are compared with the trainer's. */
function unsampled({
  id,
  parentId,
  promptSuffix,
  sampled,
}: Pick<StepCompletion, "id" | "parentId" | "promptSuffix" | "sampled">): StepCompletion {
  return {
    id,
    parentId,
    promptSuffix,
    sampled,
    logprobs: new Float32Array(sampled.length),
    policy: null,
    temperature: 1,
    topP: 1,
    constrained: false,
    finishReason: "stop",
  };
}

/**
 * The ids of a conversation. Each answer stands behind the very prompt that the gateway would make for it: the
 * earlier answers are continued token for token where the template can, and rendered anew where it cannot.
 *
 * `name` begins the completions' ids. Only messages from `from` on train; those before are a given prompt.
 */
export async function tokenised(
  renderer: Renderer,
  name: string,
  { messages: given, tools = null }: Conversation,
  { trainOn, from = 0 }: { trainOn: TrainOn; from?: number | undefined },
): Promise<StepExample> {
  const left = given.findIndex(({ weight }) => weight === 0);
  if (trainOn === "all" && left >= 0) {
    throw new HoneError(
      `message ${left} has weight 0, and trainOn "all" learns every token. Leave the weight out, or train on "assistant".`,
      { code: "invalid_request", param: `messages[${left}].weight` },
    );
  }
  const messages = given.map(withoutWeight);
  const last = given.findLastIndex(({ role }) => role === "assistant");
  const trains = (at: number): boolean => {
    const message = given[at];
    if (message?.role !== "assistant" || at < from) return false;
    return message.weight !== 0 && (trainOn !== "last_assistant" || at === last);
  };
  const earlier: LedgerCompletion[] = [];
  const trained = new Set<string>();
  for (const [at, message] of messages.entries()) {
    // An answer to nothing was given to the model, not sampled from it.
    if (message.role !== "assistant" || at === 0) continue;
    const before = messages.slice(0, at);
    const id = `${name}.${at}`;
    try {
      const answer = await renderer.answer(messages.slice(0, at + 1), tools);
      const prompt = await makePrompt(renderer, earlier, { messages: before, tools });
      earlier.push(asCompletion({ id, before, message, tools, seq: at }, prompt, answer));
    } catch (error) {
      // What is only context may have been written in any way.
      if (trains(at) || !HoneError.isInstance(error) || error.code !== "invalid_request")
        throw error;
      continue;
    }
    if (trains(at)) trained.add(id);
  }
  if (trainOn === "all") return wholeOf(name, earlier);
  return { completions: withAncestors(earlier, trained).map(unsampled), trained };
}

/**
 * The answers of a rollout that its agent took, as they were sampled: nothing of them is tokenised again. `name` begins
 * the completions' ids here: a step may hold a rollout in several examples.
 */
export function ofRollout(
  name: string,
  given: readonly LedgerCompletion[],
  trainOn: TrainOn,
): StepExample {
  const completions = given.map((completion) => ({
    ...completion,
    id: `${name}.${completion.id}`,
    parentId: completion.parentId === null ? null : `${name}.${completion.parentId}`,
  }));
  const masks = masksOf(completions, { allowConstrained: true, maskTruncatedCompletions: false });
  const taken = [...masks.keys()];
  if (trainOn === "all") {
    const [longest] = taken
      .map((id) => ({ id, length: sequenceLengths(completions).get(id) ?? 0 }))
      .sort((a, b) => b.length - a.length);
    if (!longest) return { completions: [], trained: new Set() };
    return wholeOf(longest.id, withAncestors(completions, new Set([longest.id])));
  }
  const trained = new Set(trainOn === "last_assistant" ? taken.slice(-1) : taken);
  return { completions: withAncestors(completions, trained).map(unsampled), trained };
}

/** A conversation that is over, as a scalar head reads it: at its last token, which alone counts as trained. */
export async function wholeConversation(
  renderer: Renderer,
  name: string,
  messages: Conversation["messages"],
): Promise<StepExample> {
  const ids =
    messages.length === 0 ? [] : await renderer.conversation(messages.map(withoutWeight), null);
  // Nobody can have sampled the first token of a sequence.
  if (ids.length < 2) return { completions: [], trained: new Set() };
  const whole = unsampled({
    id: name,
    parentId: null,
    promptSuffix: Int32Array.from(ids.slice(0, -1)),
    sampled: Int32Array.from(ids.slice(-1)),
  });
  return { completions: [whole], trained: new Set([name]) };
}

/** Why an example cannot be trained; null where it can. */
export function dropReason(
  { completions, trained }: StepExample,
  maxSequenceTokens: number,
): DropReason | null {
  if (trained.size === 0) return "no_tokens";
  const lengths = sequenceLengths(completions);
  return [...trained].some((id) => (lengths.get(id) ?? 0) > maxSequenceTokens) ? "too_long" : null;
}

function withoutWeight({
  weight: _weight,
  ...message
}: Conversation["messages"][number]): ChatMessage {
  return message;
}

/** Every token of the last conversation but its first, which is predicted from nothing. */
function wholeOf(name: string, completions: readonly LedgerCompletion[]): StepExample {
  const last = completions.at(-1);
  if (!last) return { completions: [], trained: new Set() };
  const ids = Int32Array.from([...fullPrompt(last, completions), ...last.sampled]);
  const id = `${name}.all`;
  const whole = unsampled({
    id,
    parentId: null,
    promptSuffix: ids.subarray(0, 1),
    sampled: ids.subarray(1),
  });
  return { completions: [whole], trained: new Set([id]) };
}

/** As the ledger would hold the answer, had a policy given it: what comes after is looked up in it. */
function asCompletion(
  of: {
    id: string;
    before: readonly ChatMessage[];
    message: ChatMessage;
    tools: readonly ChatTool[] | null;
    seq: number;
  },
  prompt: Awaited<ReturnType<typeof makePrompt>>,
  answer: readonly number[],
): LedgerCompletion {
  return {
    id: of.id,
    rolloutId: "",
    seq: of.seq,
    kind: "chat",
    parentId: prompt.parentId,
    promptSuffix: Int32Array.from(prompt.ids.slice(prompt.parentLength)),
    sampled: Int32Array.from(answer),
    logprobs: new Float32Array(answer.length),
    policy: "",
    temperature: 1,
    topP: 1,
    seed: null,
    constrained: false,
    finishReason: "stop",
    choice: 0,
    choices: 1,
    messages: of.before,
    tools: of.tools,
    answer: of.message,
    delivered: true,
    splitReason: prompt.splitReason,
    createdAt: 0,
  };
}
