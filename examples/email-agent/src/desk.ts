import type { RolloutModel } from "@hone/client";
import type OpenAI from "openai";
import type { Episode } from "./gold.ts";
import type { Outcome } from "./tools.ts";

/** Where an agent's calls are made. */
export interface Mails {
  tools: readonly OpenAI.ChatCompletionFunctionTool[];
  call(name: string, given: string): Outcome | Promise<Outcome>;
}

/** All that an agent of any framework gets. */
export interface Work {
  /** Gives the connection, and the signal that ends the rollout. */
  model: Pick<RolloutModel, "connection" | "anthropic" | "signal">;
  system: string;
  question: string;
  desk: Desk;
  mostTurns: number;
  temperature: number;
  answerTokens: number;
}

/** Works until the desk has ended, until its turns are over, or until it says something without a call. */
export type Agent = (work: Work) => Promise<void>;

/** Makes the calls of one task, and notes what came of them: the same for every framework. */
export class Desk {
  readonly #mails: Mails;
  readonly #found = new Set<string>();
  readonly #read = new Set<string>();
  #invalidReads = 0;
  #end: Pick<Episode, "answer" | "sources" | "failure"> | null = null;
  #turns = 0;
  #callsOfTurn = 0;
  #tokens = 0;

  constructor(mails: Mails) {
    this.#mails = mails;
  }

  get tools(): Mails["tools"] {
    return this.#mails.tools;
  }

  /** Whether there is an answer, or a call that ends the task. */
  get ended(): boolean {
    return this.#end !== null;
  }

  get turns(): number {
    return this.#turns;
  }

  /** The same connection, on which turns and their tokens are counted: a framework that loops by itself tells neither. */
  counted<Connection extends { fetch: Fetch }>(connection: Connection): Connection {
    const fetch: Fetch = async (input, init) => {
      const response = await connection.fetch(input, init);
      if (!response.ok) return response;
      this.#turns += 1;
      this.#callsOfTurn = 0;
      const { usage } = (await response.clone().json()) as { usage?: Record<string, unknown> };
      this.#tokens += Number(usage?.["completion_tokens"] ?? usage?.["output_tokens"] ?? 0);
      return response;
    };
    return { ...connection, fetch };
  }

  /** Makes a call, and gives the text that the model is to read. Of several calls in one turn only the first is made. */
  async run(name: string, given: unknown): Promise<string> {
    this.#callsOfTurn += 1;
    if (this.#callsOfTurn > 1 || this.ended) return '{"error":"One call a turn."}';
    const text = typeof given === "string" ? given : JSON.stringify(given);
    const outcome = await this.#mails.call(name, text);
    if (outcome.kind === "answer") {
      this.#end = { answer: outcome.answer, sources: outcome.sources, failure: null };
      return "The task is over.";
    }
    if (outcome.kind === "found") for (const id of outcome.ids) this.#found.add(id);
    else if (outcome.kind !== "read") {
      this.#end = { answer: null, sources: [], failure: outcome.kind };
    } else if (outcome.found) this.#read.add(outcome.id);
    else this.#invalidReads += 1;
    return outcome.text;
  }

  episode(mostTurns: number): Episode & { tokens: number } {
    // Its last turn made no call: it said something, or called what there is not.
    const failure = this.#callsOfTurn === 0 ? ("unparseable" as const) : null;
    return {
      ...(this.#end ?? { answer: null, sources: [], failure }),
      ...{ found: this.#found, read: this.#read, invalidReads: this.#invalidReads },
      ...{ turns: this.#turns, mostTurns, tokens: this.#tokens },
    };
  }
}

type Fetch = typeof globalThis.fetch;
