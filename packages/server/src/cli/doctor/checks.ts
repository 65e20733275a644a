import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { distances, meanOf, outsideNucleus, worstOf, type OfEngine } from "./differences.ts";
import type { Answer, Sampling, Subject } from "./subject.ts";

export interface Finding {
  check: string;
  /** In `unit`; null where nothing could be measured. */
  measured: number | null;
  /** The most that it may be. */
  threshold: number;
  unit: "logprob" | "s";
  verdict: "ok" | "failed" | "not_seen";
  /** What else is known, or what to do. */
  note: string;
}

/** What a check compares with, and how. */
export interface Examination {
  subject: Subject;
  /** The mean distance between engine and trainer that may be. @unit logprob */
  tolerance: number;
  maxModelLen: number;
  /** Requests that the engines are working on; null where nobody tells. */
  running: () => Promise<number | null>;
  say: (text: string) => void;
}

const mostSteps = 6;
const rate = 0.02;
/** How much clearer than the tolerance two policies must differ, to tell one from the other. */
const contrast = 5;
const slowestPublish = 2;
/** Of answers that take much longer than this, even from a small base. What vLLM tells may be a second old. @unit s */
const slowestAbort = 4;
/** How long the engine has to begin with them. @unit s */
const slowestBegin = 15;
const topP = 0.9;

const whatToDo = {
  likeliest:
    "At temperature 0 the engine does not take the token that it calls the likeliest: look for sampling options of its own, such as a penalty or a bias.",
  parity:
    "Engine and trainer do not compute the same: serve both from the same base files and in the same type, vLLM with --logprobs-mode processed_logprobs, and try --dtype float32.",
  swap: "The engine answers with other weights than the name says: start it anew, and do not load or unload adapters on it by hand.",
  cache:
    "Keys and values of one policy are used for another: with vLLM take a release that Hone is tested with (GET /health shows which one it is), or switch its prefix cache off.",
  abort:
    "The engine goes on with answers that nobody waits for: look for a proxy between server and engine that keeps connections open.",
  publish:
    "Each step waits for this: put the data directory on a faster disk, nearer to the engine.",
  weak: "The policies are too alike to tell them apart. Run it again; if it stays so, write to us with this table.",
} as const;

/** All checks in their order. `found` hears of each as it is made. */
export async function examine(
  { subject, tolerance, maxModelLen, running, say }: Examination,
  found: (finding: Finding) => void,
): Promise<void> {
  const compared = (check: string, told: readonly OfEngine[], advice: string, note = "") => {
    const { engine, mean: measured, engines } = worstOf(told);
    // Not a number, as of an answer without tokens, is no pass.
    const failed = !(measured <= tolerance);
    const values = told.flatMap(({ values: own }) => own);
    const most = values.length === 0 ? "no tokens" : `most ${Math.max(...values).toPrecision(2)}`;
    const who = engines > 1 ? `${engine}, the worst of ${engines} engines` : "";
    found({
      ...{ check, measured, threshold: tolerance, unit: "logprob" },
      verdict: failed ? "failed" : "ok",
      note: [who, most, note, failed ? advice : ""].filter(Boolean).join("; "),
    });
  };
  const failing = async (check: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      // Without the server there is nothing to examine.
      if (!HoneError.isInstance(error)) throw error;
      if (error.code === "connection_failed" || error.code === "aborted") throw error;
      const { message: note } = error;
      found({
        check,
        measured: null,
        threshold: tolerance,
        unit: "logprob",
        verdict: "failed",
        note,
      });
    }
  };

  say("sampling from the base");
  const base = await Promise.all(prompts.map((prompt) => subject.sampled(prompt, 0)));
  const sequences = base.map(wholeOf);
  const [one, other] = [
    sequences.filter((_, at) => at % 2 === 0),
    sequences.filter((_, at) => at % 2),
  ];
  const known = new Map<number, number[][]>([[0, await subject.trained(sequences)]]);

  /** Steps until the newest policy can be told from the one that it began with. */
  const grow = async (what: string, towards: number[][], away: number[][]): Promise<number> => {
    const before = known.get(subject.step) ?? [];
    for (let step = 0; step < mostSteps; step += 1) {
      say(`training ${what}, step ${step + 1}`);
      await subject.learn(towards, away, rate);
      const now = await subject.trained(sequences);
      known.set(subject.step, now);
      if (
        step > 0 &&
        meanOf(now.flatMap((own, at) => distances(own, before[at] ?? []))) > contrast * tolerance
      )
        break;
    }
    return subject.step;
  };

  /** Answers to the prompts, beside what the trainer says of their tokens. Of the newest policy. */
  const beside = async (step: number, how: Sampling) => {
    const answers = await Promise.all(prompts.map((prompt) => subject.sampled(prompt, step, how)));
    const trained = await subject.trained(answers.map(wholeOf), how.temperature || 1);
    return answers.map((answer, at) => ({
      answer,
      trainer: (trained[at] ?? []).slice(answer.prompt.length - 1),
    }));
  };
  const apartIn = (pairs: Awaited<ReturnType<typeof beside>>): OfEngine[] =>
    pairs.map(({ answer, trainer }) => ofEngine(answer, distances(answer.logprobs, trainer)));

  const a = await grow("policy A", one, other);
  let answersOfA: Answer[] = [];
  say("comparing engine and trainer");
  for (const temperature of [0, 0.5, 1, 1.5]) {
    const check = temperature === 0 ? "parity, greedy" : `parity, temperature ${temperature}`;
    await failing(check, async () => {
      const greedy = temperature === 0;
      const pairs = await beside(a, { temperature, likeliest: greedy });
      if (greedy) answersOfA = pairs.map(({ answer }) => answer);
      compared(check, apartIn(pairs), whatToDo.parity);
    });
  }
  compared(
    "greedy takes the likeliest",
    answersOfA.map((answer) => ofEngine(answer, distances(answer.logprobs, answer.likeliest))),
    whatToDo.likeliest,
  );
  await failing(`parity, top_p ${topP}`, async () => {
    const pairs = await beside(a, { topP });
    const outside = pairs.map(({ answer, trainer }) =>
      ofEngine(answer, outsideNucleus(answer.logprobs, trainer, topP)),
    );
    compared(`parity, top_p ${topP}`, outside, whatToDo.parity);
  });

  const b = await grow("policy B", other, one);
  const apart = meanOf(
    (known.get(a) ?? []).flatMap((own, at) => distances(own, known.get(b)?.[at] ?? [])),
  );
  say("swapping policies");
  const told = `A and B differ by ${apart.toPrecision(2)}`;
  if (!(apart > contrast * tolerance)) {
    found({
      ...{ check: "two policies that differ", measured: apart, threshold: contrast * tolerance },
      ...{ unit: "logprob", verdict: "failed", note: whatToDo.weak },
    });
  }
  /** Greedy answers of each policy as the trainer has seen them, while the policy was the newest. */
  const first = new Map<number, Answer[]>([[a, answersOfA]]);
  await failing("swap A, B, A", async () => {
    const again = async (step: number) => {
      const answers = await Promise.all(
        prompts.map((prompt) => subject.sampled(prompt, step, { temperature: 0 })),
      );
      return worstOf(sameAs(first.get(step) ?? [], answers));
    };
    const before = await again(a);
    const pairs = await beside(b, { temperature: 0 });
    first.set(
      b,
      pairs.map(({ answer }) => answer),
    );
    // The worst of the three: two that are right must not hide one that is not.
    const rounds = [before, worstOf(apartIn(pairs)), await again(a)];
    const { engine, mean } = rounds.reduce((worst, round) =>
      Number.isNaN(worst.mean) || round.mean <= worst.mean ? worst : round,
    );
    compared("swap A, B, A", [{ engine, values: [mean] }], whatToDo.swap, told);
  });
  await failing("A and B interleaved", async () => {
    const answers = await Promise.all(
      prompts.flatMap((prompt) =>
        [a, b].map((step) => subject.sampled(prompt, step, { temperature: 0 })),
      ),
    );
    const values = [a, b].flatMap((step) => {
      const own = answers.filter(({ policy }) => policy === subject.at(step));
      return sameAs(first.get(step) ?? [], own);
    });
    compared("A and B interleaved", values, whatToDo.swap, told);
  });
  await failing("prompt under A, then B", async () => {
    // The keys and values of A are there when B is asked.
    await Promise.all(prompts.map((prompt) => subject.sampled(prompt, a, { maxTokens: 1 })));
    const pairs = await beside(b, { temperature: 1 });
    compared("prompt under A, then B", apartIn(pairs), whatToDo.cache, told);
  });

  say("hanging up on answers");
  found(await hungUp({ subject, maxModelLen, running }));

  const slowest = Math.max(...subject.publishes);
  const published = slowest <= slowestPublish;
  found({
    ...{ check: "publish", measured: slowest, threshold: slowestPublish, unit: "s" },
    verdict: published ? "ok" : "failed",
    note: `the slowest of ${subject.publishes.length}${published ? "" : `; ${whatToDo.publish}`}`,
  });
}

/** Many long answers whose reader hangs up: how long until the engine has stopped. */
async function hungUp({
  subject,
  maxModelLen,
  running,
}: Pick<Examination, "subject" | "maxModelLen" | "running">): Promise<Finding> {
  const check = "disconnect, abort";
  const common = { check, threshold: slowestAbort, unit: "s" } as const;
  const before = await running();
  if (before === null) {
    const note =
      "No engine tells how many requests it is working on: look at what the server logs of their metrics.";
    return { ...common, measured: null, verdict: "not_seen", note };
  }
  const hangUp = new AbortController();
  const tokens = Math.max(16, Math.min(4096, maxModelLen - 64));
  // More than are decoded at a time: a small base is soon done with as many.
  const reading = Promise.all(
    prompts.slice(0, 2).map((prompt) => subject.stream(prompt, tokens, hangUp.signal)),
  ).catch(() => {});
  try {
    if (!(await until(slowestBegin, async () => ((await running()) ?? 0) > before))) {
      const note =
        "The engine was never seen at work on them: they were too short, or it was busy.";
      return { ...common, measured: null, verdict: "not_seen", note };
    }
    await Promise.race([reading, delay(1000)]);
  } finally {
    hangUp.abort();
  }
  const began = performance.now();
  const fell = await until(slowestAbort, async () => ((await running()) ?? Infinity) <= before);
  const measured = (performance.now() - began) / 1000;
  return fell
    ? { ...common, measured, verdict: "ok", note: "" }
    : { ...common, measured, verdict: "failed", note: whatToDo.abort };
}

async function until(seconds: number, holds: () => Promise<boolean>): Promise<boolean> {
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    if (await holds()) return true;
    await delay(20);
  }
  return false;
}

/** Of greedy answers to the same prompts, by the same policy: the distances as far as they say the same. */
function sameAs(known: readonly Answer[], answers: readonly Answer[]): OfEngine[] {
  const [first] = answers;
  if (!first || known.length !== answers.length) return [{ engine: "-", values: [Infinity] }];
  return known.map(({ ids, logprobs }, at) => {
    const answer = answers[at] ?? first;
    const { ids: now, logprobs: told } = answer;
    const differs = ids.findIndex((id, place) => id !== now[place]);
    // A tie may go the other way. Of an answer that begins otherwise nothing can be compared.
    if (differs === 0 && Math.abs((logprobs[0] ?? 0) - (told[0] ?? Infinity)) > 0.05)
      return ofEngine(answer, [Infinity]);
    const length = differs < 0 ? ids.length : differs;
    return ofEngine(answer, distances(logprobs.slice(0, length), told.slice(0, length)));
  });
}

function ofEngine({ engine }: Answer, values: readonly number[]): OfEngine {
  return { engine, values };
}

function wholeOf({ prompt, ids }: Answer): number[] {
  return [...prompt, ...ids];
}

const prompts = [
  "The harbour was quiet when the first boat came in, and",
  "To make a good soup one begins with onions and",
  "In the year of the long winter the bridge",
  "A list of five things that are blue:",
  "Dear Sir, thank you for your letter of the",
  "If seven times eight is fifty-six, then",
  "The function takes two arguments and returns",
  "She asked him why the lamp was still burning, and he said",
];
