import { join } from "node:path";
import { type ChatMessage, HoneError } from "@hone/core";
import Database from "libsql";
import { expect } from "vitest";
import type { Renderer } from "../../ports/renderer.ts";
import type { StateOptions } from "../../state.ts";
import { copyOf } from "../../store/blob.ts";
import { ended, onDatabase } from "../../testing/fixtures.ts";
import { readStepData } from "../../testing/read-step-data.ts";
import { test as stateTest } from "../../testing/state-test.ts";

/** Its ids are the codes of the letters. */
function lettersRenderer() {
  const codes = (text: string) => Array.from(text, (letter) => letter.charCodeAt(0));
  const textOf = ({ content }: ChatMessage) => (typeof content === "string" ? content : "");
  const none = () => Promise.reject(new Error("nobody asks for it here"));
  const renderer = {
    /** The answers whose ids it was asked for. */
    asked: [] as string[],
    /** They are given when this resolves. */
    opened: Promise.resolve(),
    tokens: none,
    info: () =>
      Promise.resolve({
        name: "letters",
        tools: "none" as const,
        plainTexts: true,
        stopTokenIds: [10],
        bridges: false,
        maxModelLen: 512,
        vocabSize: 512,
        longestToken: 1,
        markers: [],
        callEnd: null,
      }),
    withTemplate: (): Renderer => view,
  };
  const view: Renderer = {
    withTemplate: renderer.withTemplate,
    info: renderer.info,
    render(messages) {
      const lines = messages.map((message) => `${message.role}:${textOf(message)}\n`);
      return Promise.resolve(codes(`${lines.join("")}assistant:`));
    },
    conversation: (messages) =>
      Promise.resolve(codes(messages.map((one) => `${one.role}:${textOf(one)}\n`).join(""))),
    async answer(messages) {
      const text = textOf(messages.at(-1)!);
      renderer.asked.push(text);
      if (text === "bad") throw new HoneError("is bad", { code: "invalid_request" });
      await renderer.opened;
      return codes(`${text}\n`);
    },
    encode: none,
    bridge: none,
    parse: none,
    tokens: none,
    callGrammar: none,
    checkSchema: none,
  };
  return renderer;
}

const test = stateTest
  .extend("renderer", () => lettersRenderer())
  .extend("options", ({ renderer }): Partial<StateOptions> => ({ renderer }));

const said = (...answers: string[]) => ({
  messages: answers.flatMap((content) => [
    { role: "user", content: "?" },
    { role: "assistant", content },
  ]),
});

/** What the database holds of the newest operation. */
function newest(folder: string): { work: string; op: string; tokens: ArrayBuffer | null } {
  const database = new Database(join(folder, "hone.db"));
  const row = database
    .prepare(
      `SELECT work, op, (SELECT tokens FROM example_tokens WHERE operation_id = id) AS tokens
       FROM operations ORDER BY number DESC LIMIT 1`,
    )
    .get();
  database.close();
  return row as ReturnType<typeof newest>;
}

test("one bad example ends the reading of the others", async ({ renderer, server }) => {
  let open = (): void => undefined;
  renderer.opened = new Promise((resolve) => void (open = resolve));
  const fine = Array.from({ length: 40 }, (_, at) => `fine ${at}`);
  const examples = ["bad", ...fine].map((answer) => said(answer));
  const { json } = await server.submit({ type: "sft", examples });
  expect(await ended(server, json.id)).toMatchObject({
    status: "failed",
    error: { code: "invalid_request", param: "op.examples[0]" },
  });
  open();
  const next = await server.submit({ type: "sft", examples: [said("next")] });
  expect(await ended(server, next.json.id)).toMatchObject({ status: "succeeded" });
  // Four are read at once.
  expect(renderer.asked).toEqual(["bad", "fine 0", "fine 1", "fine 2", "next"]);
});

test("ids stand as bytes beside the operation until it ends; the examples of a validation go with them", async ({
  folder,
  server,
  trainer,
}) => {
  const examples = [said("yes", "no"), said("perhaps")];
  for (const evaluate of [false, true]) {
    const during: ReturnType<typeof newest>[] = [];
    trainer.before.push(async () => void during.push(newest(folder)));
    const { json } = await server.submit({ type: "sft", examples, evaluate });
    const over = await ended(server, json.id);
    expect(over).toMatchObject({ status: "succeeded", result: { examples: 2 } });
    const { completions, tensor } = readStepData(trainer.trained.at(-1)!);
    expect(completions).toHaveLength(3);
    expect(Array.from(new Int32Array(copyOf(during[0]!.tokens!)))).toEqual(tensor("tokens"));
    const stored = JSON.parse(during[0]!.work).completions as { prompt: number; answer: number }[];
    expect(stored.map(({ prompt, answer }) => [prompt, answer])).toEqual(
      completions.map(({ prompt, answer }) => [prompt.length, answer.length]),
    );
    const after = newest(folder);
    expect(after.tokens).toBeNull();
    expect(JSON.parse(after.op).examples).toEqual(evaluate ? [] : examples);
  }
  trainer.before.push(() => Promise.reject(new HoneError("no", { code: "train_failed" })));
  const failing = await server.submit({ type: "sft", examples });
  expect(await ended(server, failing.json.id)).toMatchObject({ status: "failed" });
  expect(newest(folder).tokens).toBeNull();
});

test("a validation without its examples is still known by its token", async ({ server }) => {
  const op = { type: "sft", examples: [said("yes")], evaluate: true };
  const again = () => server.submit(op, { clientToken: "again" });
  const over = await ended(server, (await again()).json.id);
  expect(over).toMatchObject({ status: "succeeded", result: { trained: false } });
  expect((await again()).json).toEqual(over);
  const changed = { ...op, examples: [said("no")] };
  const other = await server.submit(changed, { clientToken: "again" });
  expect(other.json.error).toMatchObject({ code: "client_token_reused" });
});

test("a step that a restart cut off is done again from what was stored", async ({
  folder,
  renderer,
  server,
  trainer,
}) => {
  const op = { type: "sft", examples: [said("yes", "no"), said("perhaps")] };
  await ended(server, (await server.submit(op)).json.id);
  const { completions } = readStepData(trainer.trained[0]!);
  for (const stored of [true, false]) {
    trainer.before.push(async (signal) => {
      await new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
      throw new Error("the server ends");
    });
    const { json } = await server.submit(op);
    await expect.poll(() => trainer.before.length).toBe(0);
    await server.close();
    // As an earlier version leaves it: the examples are read again.
    if (!stored) await onDatabase(folder, "DELETE FROM example_tokens");
    renderer.asked = [];
    await server.open();
    await server.state.onEngineReady();
    expect(await ended(server, json.id)).toMatchObject({
      status: "succeeded",
      result: { trained: true, examples: 2 },
    });
    expect(readStepData(trainer.trained.at(-1)!).completions).toEqual(completions);
    expect(renderer.asked.toSorted()).toEqual(stored ? [] : ["no", "perhaps", "yes"]);
  }
});
