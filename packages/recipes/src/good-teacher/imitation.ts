import { readFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import type { Hone, Model, SupervisedEvent } from "@hone/client";
import { conversationSchema, HoneError, type Conversation } from "@hone/core";
import { z } from "zod";
import { labelledSchema, parsedRow, readRows } from "./preferences.ts";
import { runStage, sha256 } from "./stage.ts";

/** How the first policy is made. The same for each model, so that all begin with the same weights. */
interface ImitationSettings {
  /** Conversations in OpenAI's format, or labelled preferences, whose better answers are imitated. */
  examples: string;
  epochs: number;
  batchSize: number;
  learningRate: number;
  /** Of the adapter's first weights and of the order. */
  seed: number;
}

const startSchema = z.object({
  model: z.string(),
  step: z.int(),
  /** Where the examples are, seen from this file. */
  examples: z.string(),
  sha256: z.string(),
  ...{ epochs: z.int(), batchSize: z.int(), learningRate: z.number(), seed: z.int() },
});

/** The first policy: all reward models and policies of the pipeline begin with its weights. */
export interface Start extends z.infer<typeof startSchema> {
  conversations: Conversation[];
}

export interface ServerOptions {
  hone: Hone;
  signal: AbortSignal;
  onStep?: ((event: SupervisedEvent) => void) | undefined;
}

export interface SftOptions extends ServerOptions, ImitationSettings {
  model: string;
  out: string;
}

/** Makes the first policy by imitation, and keeps it. */
export async function imitate(options: SftOptions): Promise<boolean> {
  const { model: name, out, examples, epochs, batchSize, learningRate, seed } = options;
  const settings = { epochs, batchSize, learningRate, seed };
  return await runStage(
    { name: "sft", out, inputs: { examples }, options: { model: name, ...settings } },
    async () => {
      const conversations = await readConversations(examples);
      const start = {
        ...{ model: name, step: 0, sha256: sha256(await readFile(examples)) },
        ...{ examples: relative(dirname(resolve(out)), resolve(examples)), ...settings },
      };
      const { step } = await startedFrom({ ...start, conversations }, name, options);
      return `${JSON.stringify({ ...start, step }, null, 2)}\n`;
    },
  );
}

export async function readStart(path: string): Promise<Start> {
  const text = await readFile(path, "utf8");
  const start = parsedRow(JSON.parse(text), path, startSchema);
  const examples = resolve(dirname(path), start.examples);
  if (sha256(await readFile(examples)) !== start.sha256) {
    throw new HoneError(
      `${examples} has been changed since ${path} was made of it: models would begin with other weights. Put it back.`,
      { code: "invalid_config", param: "sft" },
    );
  }
  return { ...start, conversations: await readConversations(examples) };
}

/**
 * A model that begins with the first policy's weights: it imitates the same examples in the same order. One that has
 * done so goes on where it is.
 */
export async function startedFrom(
  start: Omit<Start, "step">,
  name: string,
  { hone, signal, onStep }: ServerOptions,
): Promise<{ model: Model; step: number }> {
  const { conversations, epochs, batchSize, learningRate, seed } = start;
  const model = await hone.model({ name, seed }, { signal });
  const run = await model.sft(conversations, {
    ...{ epochs, batchSize, learningRate, seed, schedule: { type: "linear" }, signal },
    ...{ run: "first policy", onProgress: onStep },
  });
  // Each of its steps trained something, or the run would be one of another length.
  const step = run.steps;
  if (run.done > 0 && run.step !== step) {
    throw new HoneError(
      `${name} is at step ${run.step} after ${step} steps of imitation: it had been trained before. Give the pipeline another --name.`,
      { code: "step_mismatch" },
    );
  }
  // What is measured against it needs it for as long as the pipeline lasts.
  await model.at(step).save({ signal });
  return { model, step };
}

async function readConversations(path: string): Promise<Conversation[]> {
  const rows = await readRows(path, z.union([conversationSchema, labelledSchema]));
  const conversations = rows.flatMap((row): Conversation[] => {
    if ("messages" in row) return [row];
    if (row.split !== "reward_model") return [];
    return [parsedRow({ messages: row.chosen }, path, conversationSchema)];
  });
  return conversations;
}
