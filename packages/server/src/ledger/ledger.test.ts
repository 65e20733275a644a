import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type ChatMessage, HoneError } from "@hone/core";
import fc from "fast-check";
import Database from "libsql";
import { afterEach, beforeEach, expect, test } from "vitest";
import { completionOf, silent, temporaryFolder } from "../testing/fixtures.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { migrations } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { continuedIds } from "../conversation/continuation.ts";
import { createLedger } from "./ledger.ts";
import { conversations, usageOf } from "./trajectory.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let store: Store;
beforeEach(async () => {
  folder = await temporaryFolder();
  store = await openStore(folder.path);
});
afterEach(async () => {
  await store.close();
  await folder.remove();
});

const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });
const tool = { type: "function" as const, function: { name: "f" } };

/** A conversation of n turns, each the continuation of the one before. */
function episode(turns: number): LedgerCompletion[] {
  const completions: LedgerCompletion[] = [];
  let messages: ChatMessage[] = [user("begin")];
  for (let turn = 0; turn < turns; turn++) {
    const answer = assistant(`a${turn}`);
    completions.push(
      completionOf("r", {
        id: `c${turn}`,
        parentId: turn === 0 ? null : `c${turn - 1}`,
        seq: turn,
        messages,
        answer,
        tools: [tool],
        constrained: turn % 2 === 1,
        logprobs: Float32Array.of(-0.1, -1 / 3),
      }),
    );
    messages = [...messages, answer, user(`u${turn}`)];
  }
  return completions;
}

test("what was appended is read back from the database bit for bit", async () => {
  const first = createLedger(store, silent);
  const completions = episode(5);
  for (const completion of completions) await first.append([completion]);
  await first.markDelivered(["c0"]);
  await store.flush();
  const second = createLedger(store, silent);
  expect(await second.list("r")).toEqual(completions);
  expect(second.count("r")).toBe(5);
});

test("memory is what readers see before the disk has it", async () => {
  const ledger = createLedger(store, silent);
  await ledger.append([completionOf("r", { id: "a", delivered: false })]);
  await ledger.markDelivered(["a"]);
  expect((await ledger.list("r"))[0]?.delivered).toBe(true);
});

test("a rollout dropped from memory keeps what it had and takes more", async () => {
  const ledger = createLedger(store, silent);
  const [a, b] = episode(2);
  await ledger.append([a!]);
  await ledger.retain(() => false);
  await ledger.append([b!]);
  await ledger.markDelivered(["c0"]);
  expect(await ledger.list("r")).toEqual([a, b]);
});

test("a call that ends while its rollout is dropped from memory is not half forgotten", async () => {
  const ledger = createLedger(store, silent);
  await ledger.append([completionOf("r", { id: "a" })]);
  const retaining = ledger.retain(() => false);
  await ledger.append([completionOf("r", { id: "b", delivered: false })]);
  await ledger.markDelivered(["b"]);
  await retaining;
  expect((await ledger.list("r")).map(({ id, delivered }) => [id, delivered])).toEqual([
    ["a", true],
    ["b", true],
  ]);
});

test("what the disk refused is written again before the rollout ends", async () => {
  let full = true;
  const disk: Store = {
    ...store,
    write: (statements) =>
      full && statements.length > 0
        ? Promise.reject(new HoneError("full", { code: "disk_full" }))
        : store.write(statements),
  };
  const ledger = createLedger(disk, silent);
  const completions = episode(3);
  for (const completion of completions) await ledger.append([completion]);
  await ledger.markUnreceived(["c2"]);
  await expect(ledger.settle(["r"])).rejects.toMatchObject({ code: "disk_full" });
  await ledger.retain(() => false);
  full = false;
  await ledger.settle(["other", "r"]);
  const last = { ...completions[2], delivered: false };
  expect(await createLedger(store, silent).list("r")).toEqual([...completions.slice(0, 2), last]);
});

test("of choices with the same words one is continued", () => {
  const messages = [user("go")];
  const choices = [0, 1, 2, 3].map((choice) =>
    completionOf("r", {
      id: `c${choice}`,
      seq: choice,
      choice,
      choices: 4,
      messages,
      answer: assistant(choice === 3 ? "up" : "left"),
    }),
  );
  const next = { id: "next", seq: 4, messages: [...messages, assistant("left"), user("and?")] };
  const bridged = completionOf("r", { ...next, parentId: "c1" });
  expect([...continuedIds([...choices, bridged])]).toEqual(["c1"]);
  // Where the renderer could not bridge there is no parent; the latest of the equals stands for all.
  const split = completionOf("r", { ...next, splitReason: "cannot_bridge" });
  expect([...continuedIds([...choices, split])]).toEqual(["c2"]);
});

test("completions are numbered in the order in which they came, whatever they say", async () => {
  const ledger = createLedger(store, silent);
  await Promise.all(
    ["a", "b", "c"].map((id) => ledger.append([completionOf("r", { id, seq: 0 })])),
  );
  await store.flush();
  const read = await createLedger(store, silent).list("r");
  expect(read.map(({ id, seq }) => [id, seq])).toEqual([
    ["a", 0],
    ["b", 1],
    ["c", 2],
  ]);
});

test("a completion that continues nothing known is refused", () => {
  const ledger = createLedger(store, silent);
  expect(() => ledger.append([completionOf("r", { parentId: "gone" })])).toThrow(/gone/);
});

test("a long episode costs what is new in each turn", async () => {
  const ledger = createLedger(store, silent);
  await ledger.append(episode(40));
  await store.flush();
  const rows = store.all("SELECT messages, tools FROM completions ORDER BY seq") as {
    messages: string;
    tools: string;
  }[];
  expect(new Set(rows.slice(1).map(({ tools }) => tools))).toEqual(new Set(['"same"']));
  const sizes = rows.map(({ messages }) => messages.length);
  expect(Math.max(...sizes.slice(1)) - Math.min(...sizes.slice(1))).toBeLessThan(10);
});

test("any tree of any messages survives the way to the database and back", async () => {
  const message = fc.oneof(
    fc.string().map(user),
    fc.string().map(assistant),
    fc.string().map((content): ChatMessage => ({ role: "system", content, extra: [1, null] })),
  );
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(fc.array(message, { minLength: 1, maxLength: 6 }), fc.nat(9), fc.int32Array()),
        {
          maxLength: 8,
        },
      ),
      async (nodes) => {
        const rolloutId = `run${run++}`;
        const completions = nodes.map(([messages, parent, promptSuffix], i) =>
          completionOf(rolloutId, {
            id: `${rolloutId}-${i}`,
            seq: i,
            messages,
            promptSuffix,
            parentId: parent < i ? `${rolloutId}-${parent}` : null,
            tools: i % 2 ? [tool] : null,
          }),
        );
        await createLedger(store, silent).append(completions);
        await store.flush();
        expect(await createLedger(store, silent).list(rolloutId)).toEqual(completions);
      },
    ),
    { numRuns: 30 },
  );
});

test("the longest conversation comes first, those that it does not continue after it", () => {
  const long = episode(3);
  const aside = completionOf("r", {
    id: "side",
    seq: 3,
    messages: [user("aside")],
    answer: assistant("yes"),
  });
  const lost = completionOf("r", {
    id: "lost",
    seq: 4,
    messages: [user("lost")],
    delivered: false,
  });
  const [first, second, ...rest] = conversations([...long, aside, lost]);
  expect(first?.messages.map(({ content }) => content)).toEqual([
    "begin",
    "a0",
    "u0",
    "a1",
    "u1",
    "a2",
  ]);
  expect(second?.messages.map(({ content }) => content)).toEqual(["aside", "yes"]);
  expect(rest).toEqual([]);
});

test("where the renderer could not bridge, the messages say what continues what", () => {
  const unbridged = episode(3).map((completion) => ({ ...completion, parentId: null }));
  expect([...continuedIds(unbridged)]).toEqual(["c0", "c1"]);
  const edited = unbridged.map((c, i) =>
    i === 2 ? { ...c, messages: [user("other"), ...c.messages] } : c,
  );
  expect([...continuedIds(edited)]).toEqual(["c0"]);
});

test("a conversation names the completion of each answer, bridged or not", () => {
  const turnsIn = (completions: Parameters<typeof conversations>[0]) =>
    conversations(completions).map(({ messages, turns }) =>
      turns.map(({ message, completion }) => [messages[message]?.content, completion.id]),
    );
  const bridged = episode(3);
  const expected = [
    ["a0", "c0"],
    ["a1", "c1"],
    ["a2", "c2"],
  ];
  expect(turnsIn(bridged)).toEqual([expected]);
  expect(turnsIn(bridged.map((one) => ({ ...one, parentId: null })))).toEqual([expected]);
  // The chain is broken in its middle.
  expect(turnsIn(bridged.map((one, i) => (i === 1 ? { ...one, parentId: null } : one)))).toEqual([
    expected,
  ]);
  // An answer that the agent wrote itself is no turn.
  const edited = bridged.map((one, i) =>
    i === 2 ? { ...one, parentId: null, messages: [user("other"), ...one.messages] } : one,
  );
  expect(turnsIn(edited)).toEqual([[["a2", "c2"]], expected.slice(0, 2)]);
});

test("of several choices the conversation is the one that was gone on with", () => {
  const choices = [0, 1, 2].map((choice) =>
    completionOf("r", {
      id: `c${choice}`,
      seq: choice,
      choice,
      choices: 3,
      answer: assistant(`a${choice}`),
    }),
  );
  const next = completionOf("r", {
    id: "n",
    seq: 3,
    parentId: "c1",
    messages: [user("2 + 2?"), assistant("a1"), user("go on")],
  });
  expect(conversations([...choices, next])).toHaveLength(1);
  expect(conversations(choices).map(({ messages }) => messages.at(-1)?.content)).toEqual(["a0"]);
});

test("usage counts what trains only where that is allowed", () => {
  const free = { temperature: 1, topP: 1, constrained: false };
  const [a, b, c] = episode(3).map((completion) => ({ ...completion, ...free })) as [
    ...[LedgerCompletion, LedgerCompletion, LedgerCompletion],
  ];
  const odd = [
    { ...a, temperature: 0 },
    { ...b, topP: 0.9 },
    { ...c, constrained: true },
  ];
  expect(usageOf(odd)).toMatchObject({
    ...{ completions: 3, constrained: 3 },
    constrainedBy: ["temperature", "tool_choice", "top_p"],
  });
  const held = {
    ...c,
    constrained: true,
    tools: [{ type: "function" as const, function: { name: "look" } }],
  };
  expect(usageOf([held])).toMatchObject({ constrainedBy: ["tool_choice"] });
  expect(usageOf([{ ...held, tools: null }])).toMatchObject({ constrainedBy: ["response_format"] });
  expect(usageOf([a, odd[1]!, c])).toMatchObject({ constrained: 1 });
  expect("constrained" in usageOf([a, b, c])).toBe(false);
});

test("usage counts the whole prompt of each request", () => {
  expect(usageOf(episode(3))).toEqual({
    completions: 3,
    promptTokens: 3 + (5 + 3) + (10 + 3),
    completionTokens: 6,
    sequenceTokens: 3 + 2 + (3 + 2) + (3 + 2),
    constrained: episode(3).filter(({ constrained }) => constrained).length,
    constrainedBy: ["tool_choice"],
  });
});

test("a plain prompt is read back as one, and is continued by its ids alone", async () => {
  const ledger = createLedger(store, silent);
  const first = completionOf("r", {
    id: "p0",
    kind: "text",
    messages: [user("once")],
    answer: assistant(" upon"),
  });
  const next = completionOf("r", {
    id: "p1",
    kind: "text",
    seq: 1,
    parentId: "p0",
    messages: [user("once"), assistant(" upon")],
    answer: assistant(" a time"),
  });
  // The same words as a chat: another conversation.
  const chat = completionOf("r", {
    id: "c",
    seq: 2,
    messages: [user("once"), assistant(" upon"), user("and?")],
    answer: assistant("then"),
  });
  await ledger.append([first, next, chat]);
  await store.flush();
  expect(await createLedger(store, silent).list("r")).toEqual([first, next, chat]);
  expect([...continuedIds([first, next, chat])]).toEqual(["p0"]);
});

test("rows of the first schema are chats", async () => {
  const path = join(folder.path, "old");
  await mkdir(path);
  const old = new Database(join(path, "hone.db"));
  old.exec(migrations[0]!);
  old.exec("PRAGMA user_version = 1");
  old.exec(`INSERT INTO completions VALUES ('c0', 'r', 0, NULL, x'01000000', x'02000000', x'0000803f', 'm@1', 1, 1,
    NULL, 'stop', 0, 1, 0, '[{"role":"user","content":"hi"}]', NULL, '{"role":"assistant","content":"ho"}', 1, NULL, 5)`);
  old.close();
  const opened = await openStore(path);
  const [completion] = await createLedger(opened, silent).list("r");
  await opened.close();
  expect(completion).toMatchObject({ id: "c0", kind: "chat", messages: [user("hi")] });
  expect([...completion!.promptSuffix, ...completion!.sampled]).toEqual([1, 2]);
});
