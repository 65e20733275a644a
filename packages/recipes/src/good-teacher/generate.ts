import { gather, type Policy, type RolloutModel } from "@hone/client";
import { HoneError, type ChatMessage } from "@hone/core";
import type { ExaminedJudge } from "../doctor/judge.ts";
import { hashOf } from "../self-judge/coin.ts";
import { askModel } from "../ask-model.ts";
import { labelledSchema, promptOf, readRows, type Outputs, type Split } from "./preferences.ts";
import { requireApart, scored, type ScoringOptions } from "./scoring.ts";
import { jsonLines, runStage, type Progress } from "./stage.ts";

export interface GenerateOptions extends ScoringOptions {
  /** Labelled preferences: their prompts are answered. */
  labelled: string;
  out: string;
  /** The first policy. */
  policy: Policy;
  /** What the file says of it, and what decides it. */
  start: string;
  scorer: ExaminedJudge;
  scorerFile?: string | undefined;
  /** Answers to a prompt for reward models, of which a pair is made, and to one for policies or measuring. */
  samples: { pairs: number; measured: number };
  temperature: number;
  answerTokens: number;
  seed: number;
}

type Sampled = { outputs: string[] } | { gold: number[] | null };

/** Prompts that are answered between two notes of how far it has come. */
const chunk = 16;

/** Samples the first policy on every prompt, and has the scorer score what it says. */
export async function generate(options: GenerateOptions): Promise<boolean> {
  const { labelled, out, policy, start, scorer, scorerFile, samples, seed } = options;
  const { temperature, answerTokens, signal } = options;
  const name = `${policy.name}@${policy.step}`;
  return await runStage<Sampled>(
    {
      ...{ name: "generate", out },
      inputs: { labelled, sft: start, ...(scorerFile && { scorer: scorerFile }) },
      options: { policy: name, scorer: scorer.label, samples, temperature, answerTokens, seed },
    },
    async (progress) => {
      const prompts = promptsOf(await readRows(labelled, labelledSchema));
      const said = await sampled(prompts, progress, options);
      const items = prompts.map(({ prompt }, at) => ({
        prompt,
        answers: (said[at] as string[]).map((content): ChatMessage[] => [
          { role: "assistant", content },
        ]),
      }));
      const gold = await scored(items, scorer, goldOf(progress, prompts.length), {
        ...{ signal, concurrency: options.concurrency },
        onProgress: options.onProgress,
      });
      requireApart(gold, scorer.label, "prompts");
      return jsonLines(
        prompts.flatMap(({ prompt, split }, at): Outputs[] => {
          const scores = gold[at];
          if (!scores) return [];
          return [{ prompt, split, policy: name, outputs: said[at] as string[], gold: scores }];
        }),
      );
    },
  );
}

interface Prompt {
  prompt: ChatMessage[];
  split: Split;
}

/** Each once, in the file's order. */
export function promptsOf(
  rows: readonly { chosen: readonly ChatMessage[]; split: Split }[],
): Prompt[] {
  const found = new Map<string, Prompt>();
  for (const { chosen, split } of rows) {
    const prompt = promptOf([...chosen]);
    const key = JSON.stringify(prompt);
    if (!found.has(key)) found.set(key, { prompt, split });
  }
  return [...found.values()];
}

/** Each answer has a seed of its own, so that those of a run that goes on are those of one that was not stopped. */
async function sampled(
  prompts: readonly Prompt[],
  progress: Progress<Sampled>,
  options: GenerateOptions,
): Promise<string[][]> {
  const { policy, samples, temperature, answerTokens, seed, signal, concurrency = 16 } = options;
  const left = prompts.flatMap((_, at) => (progress.done.has(at) ? [] : [at]));
  const rollout = async (
    model: RolloutModel,
    { messages, nth }: { messages: ChatMessage[]; nth: number },
  ) => {
    const own = hashOf(`${seed} ${nth} ${JSON.stringify(messages)}`) & 0x7fffffff;
    const request = { messages, temperature, max_tokens: answerTokens, seed: own };
    await askModel(model, request, "The policy gave no answer");
    return null;
  };
  for (let first = 0; first < left.length; first += chunk) {
    const those = left.slice(first, first + chunk);
    const scenarios = those.flatMap((at) => {
      const { prompt, split } = prompts[at] as Prompt;
      const count = split === "reward_model" ? samples.pairs : samples.measured;
      return Array.from({ length: count }, (_, nth) => ({ at, messages: prompt, nth }));
    });
    const groups = await gather(policy, rollout, scenarios, {
      ...{ groupSize: 1, mode: "eval", concurrency, maxExceptions: 0, retries: 1, signal },
    });
    const answers = new Map<number, string[]>(those.map((at) => [at, []]));
    for (const [place, { trajectories }] of groups.entries()) {
      const content = trajectories[0]?.messages.at(-1)?.content ?? "";
      answers.get(scenarios[place]!.at)?.push(textOf(content));
    }
    await progress.keep([...answers].map(([at, outputs]) => ({ at, value: { outputs } })));
    options.onProgress?.(Math.min(first + chunk, left.length), left.length);
  }
  return prompts.map((_, at) => {
    const value = progress.done.get(at);
    if (value && "outputs" in value) return value.outputs;
    throw new HoneError(`${options.out}.partial lacks the answers to prompt ${at}. Delete it.`, {
      code: "invalid_config",
    });
  });
}

/** The scores stand behind the answers in the stage's notes. */
function goldOf(progress: Progress<Sampled>, behind: number): Progress<number[] | null> {
  const done = new Map<number, number[] | null>();
  for (const [at, value] of progress.done) {
    if ("gold" in value) done.set(at - behind, value.gold);
  }
  return {
    done,
    async keep(items) {
      await progress.keep(
        items.map(({ at, value }) => ({ at: at + behind, value: { gold: value } })),
      );
      for (const { at, value } of items) done.set(at, value);
    },
  };
}

export function textOf(content: ChatMessage["content"] | undefined): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => ("text" in part ? part.text : "")).join("");
}
