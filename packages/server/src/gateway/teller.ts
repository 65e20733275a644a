import { messageText } from "@hone/core";
import type { EngineChunk } from "../ports/engine.ts";
import type { AnswerEvent, Told } from "./answer-events.ts";
import type { PreparedAsk, GatewayParts } from "./prepare.ts";
import type { Answer, Sample } from "./sample.ts";
import { createTextGate } from "./text-gate.ts";

/** Decides what is told of an answer, and when. */
export interface Teller {
  /** To be called with each chunk, once it is in the samples. Null: nothing can be told yet. */
  chunk(chunk: EngineChunk): Promise<AnswerEvent | null>;
  /** The answers as the client has them: what went out cannot be taken back. */
  asTold(answers: readonly Answer[]): readonly Answer[];
  /** What is still owed when all is sampled. */
  rest(answers: readonly Answer[]): AsyncIterable<AnswerEvent>;
}

/** Tells content as it comes, and reasoning and calls once they are parsed. A plain prompt's answer is all content. */
export async function createTeller(
  parts: GatewayParts,
  prepared: PreparedAsk,
  samples: readonly Sample[],
): Promise<Teller> {
  const { ask } = prepared;
  const told = samples.map(() => 0);

  /**
   * What was sampled of a choice since its last event. Events that are told for each token are written out as literals,
   * because spreading this into them would double their cost.
   */
  function since(index: number): Told | Promise<Told> {
    const from = told[index]!;
    const sample = samples[index]!;
    told[index] = sample.ids.length;
    const ids = sample.ids.slice(from);
    if (ask.logprobs === null) return { index, ids, logprobs: null };
    const sampled = { ids, logprobs: sample.logprobs.slice(from), top: sample.top.slice(from) };
    return parts.tokens.content(sampled).then((logprobs) => ({ index, ids, logprobs }));
  }

  if (ask.kind === "text") {
    return {
      async chunk({ index, text, finishReason: reason }) {
        const { ids, logprobs } = await since(index);
        if (reason === null) return { type: "text-delta", index, text, ids, logprobs };
        return { type: "finish", index, text, reason, ids, logprobs };
      },
      asTold: (answers) => answers,
      async *rest() {},
    };
  }

  const { format, callable } = ask;
  const markers = format && !callable ? [] : (await parts.renderer.info()).markers;
  const gates = samples.map(() => createTextGate(markers));

  return {
    async chunk({ index, text: sampled }) {
      const gate = gates[index]!;
      let text = gate.push(sampled);
      if (gate.undecided) {
        const parse = () => parts.renderer.parse(samples[index]!.ids, callable);
        const keep = format !== null || /^\s/.test((await parse()).content ?? "");
        text = gate.decide(keep);
      }
      if (!text) return null;
      const owed = since(index);
      // Mostly there is no promise here, and awaiting at each token would cost a tenth of the whole.
      const { ids, logprobs } = owed instanceof Promise ? await owed : owed;
      return { type: "text-delta", index, text, ids, logprobs };
    },

    asTold: (answers) =>
      answers.map((answer, i) => {
        const { passed } = gates[i]!;
        if (messageText(answer.message).startsWith(passed)) return answer;
        parts.log.warn(
          { policy: prepared.policy, rollout: prepared.record?.rolloutId },
          "the streamed text is not the beginning of the parsed answer",
        );
        return { ...answer, message: { ...answer.message, content: passed } };
      }),

    async *rest(answers) {
      for (const [i, { message, finishReason: reason, stopString }] of answers.entries()) {
        const { reasoning_content: reasoning, tool_calls: calls } = message;
        const text = messageText(message).slice(gates[i]!.passed.length);
        if (reasoning) yield { ...(await since(i)), type: "reasoning-delta", text: reasoning };
        if (text) yield { ...(await since(i)), type: "text-delta", text };
        if (calls?.length) yield { ...(await since(i)), type: "calls", calls };
        yield { ...(await since(i)), type: "finish", text: "", reason, stopString };
      }
    },
  };
}
