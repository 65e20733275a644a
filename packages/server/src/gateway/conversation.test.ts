import { describe, expect, it, vi } from "vitest";
import type OpenAI from "openai";
import { workerPython } from "../testing/running-engine.ts";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { fullPrompt } from "../conversation/prompt.ts";
import { usageOf } from "../ledger/trajectory.ts";
import { moveCall, tools, useScriptedGateway } from "../testing/scripted-gateway.ts";

type Message = OpenAI.ChatCompletionMessageParam;

describe.skipIf(!workerPython())("conversations of a rollout", () => {
  const on = useScriptedGateway();

  function expectExtends(completion: LedgerCompletion, parent: LedgerCompletion): void {
    expect(completion.splitReason).toBeNull();
    expect(completion.parentId).toBe(parent.id);
    const before = [...fullPrompt(parent, on.recorded()), ...parent.sampled];
    const request = on.engine.requests[completion.seq]!;
    expect(fullPrompt(completion, on.recorded())).toEqual(request.prompt);
    expect(request.prompt.slice(0, before.length)).toEqual(before);
    expect(completion.promptSuffix.length).toBe(request.prompt.length - before.length);
  }

  it("extends itself token for token over 20 turns with tools", async () => {
    const messages: Message[] = [{ role: "user", content: "Play." }];
    for (let turn = 0; turn < 20; turn++) {
      const args = `{"direction":  "left", "far": false, "turn": ${turn}.0}`;
      on.engine.lines.push({
        answer:
          turn % 3 === 2
            ? { content: `I wait ${turn}` }
            : { content: turn % 2 ? "Look." : null, tool_calls: [moveCall(args)] },
      });
      const stream = turn % 2 === 1;
      const message = stream
        ? await on.client.chat.completions.stream({ model: "m", messages, tools }).finalMessage()
        : await on.say(messages, { tools });
      const calls = message.tool_calls;
      // What SDKs do to a history: parsed fields, reordered arguments, empty content for null.
      messages.push({
        role: "assistant",
        content: message.content ?? "",
        ...(calls?.length && {
          tool_calls: calls.map((call) => {
            if (call.type !== "function") throw new Error("not a function");
            const value = JSON.parse(call.function.arguments) as Record<string, unknown>;
            const reordered = Object.fromEntries(Object.entries(value).toReversed());
            return {
              id: call.id,
              type: "function" as const,
              function: { name: call.function.name, arguments: JSON.stringify(reordered) },
            };
          }),
        }),
      });
      if (calls?.length) {
        for (const call of calls) {
          messages.push({ role: "tool", tool_call_id: call.id, content: `moved ${turn}` });
        }
      } else messages.push({ role: "user", content: "Go on." });
    }
    const all = on.recorded();
    expect(all.map((completion) => completion.seq)).toEqual([...Array(20).keys()]);
    expect(all.every((completion) => completion.delivered)).toBe(true);
    expect(all[0]!.parentId).toBeNull();
    for (let i = 1; i < 20; i++) expectExtends(all[i]!, all[i - 1]!);
    expect(Object.values(on.gateway.counters.splits)).toEqual([0, 0, 0, 0]);
    expect(on.gateway.router.leases).toBe(0);
  });

  it("sends tool calls parsed, with ids of its own, and the reasoning apart", async () => {
    const line = {
      answer: {
        content: "Look.",
        reasoning_content: "a corner",
        tool_calls: [moveCall('{"direction": "left"}'), moveCall('{"direction": "up"}')],
      },
    };
    on.engine.lines.push(structuredClone(line), structuredClone(line));
    const messages: Message[] = [{ role: "user", content: "Play." }];
    const whole = await on.client.chat.completions.create({ model: "m", messages, tools });
    const deltas: OpenAI.ChatCompletionChunk.Choice.Delta[] = [];
    const stream = on.client.chat.completions.stream({ model: "m", messages, tools });
    stream.on("chunk", (chunk) => void deltas.push(chunk.choices[0]!.delta));
    const streamed = await stream.finalChatCompletion();
    for (const { choices } of [whole, streamed]) {
      const { message, finish_reason: finish } = choices[0]!;
      expect(finish).toBe("tool_calls");
      expect(message.content).toBe("Look.");
      const calls = message.tool_calls!;
      expect(calls.map((made) => made.type === "function" && made.function.arguments)).toEqual([
        '{"direction": "left"}',
        '{"direction": "up"}',
      ]);
      expect(new Set(calls.map((made) => made.id)).size).toBe(2);
      for (const { id } of calls) expect(id).toMatch(/^call_[0-9a-f]{24}$/);
    }
    expect(whole.choices[0]!.message).toMatchObject({ reasoning_content: "a corner" });
    expect(deltas).toContainEqual({ reasoning_content: "a corner" });
    expect(on.recorded()[1]!.answer).toMatchObject({
      content: "Look.",
      reasoning_content: "a corner",
    });
  });

  it("streams content up to the call, and nothing of the call itself", async () => {
    on.engine.lines.push({ answer: { content: "Look at it.", tool_calls: [moveCall("{}")] } });
    const contents: string[] = [];
    const stream = await on.client.chat.completions.create({
      model: "m",
      messages: [{ role: "user", content: "Play." }],
      tools,
      stream: true,
    });
    for await (const chunk of stream) contents.push(chunk.choices[0]?.delta.content ?? "");
    expect(contents.join("")).toBe("Look at it.");
    expect(contents.filter((content) => content !== "").length).toBeGreaterThan(3);
  });

  it("splits and says why: edited history, changed tools, another conversation", async () => {
    const first: Message = { role: "user", content: "Play." };
    on.engine.lines.push(
      ...["one", "two", "three", "four", "five"].map((content) => ({ answer: { content } })),
    );
    const one = await on.say([first], { tools });
    await on.say([first, { role: "assistant", content: "uno" }, { role: "user", content: "Go." }], {
      tools,
    });
    await on.say([first, one, { role: "user", content: "Go." }]);
    await on.say([{ role: "user", content: "A judge's question." }]);
    await on.say(
      [
        first,
        { role: "assistant", content: [{ type: "text", text: "one" }] },
        { role: "user", content: "Go." },
      ],
      { tools },
    );
    expect(on.recorded().map((completion) => completion.splitReason)).toEqual([
      null,
      "edited_history",
      "tools_changed",
      "new_conversation",
      null,
    ]);
    expectExtends(on.recorded()[4]!, on.recorded()[0]!);
    expect(on.gateway.counters.splits).toEqual({
      edited_history: 1,
      cannot_bridge: 0,
      tools_changed: 1,
      new_conversation: 1,
    });
    for (const completion of on.recorded().slice(1, 4)) {
      expect(completion.parentId).toBeNull();
      expect(Array.from(completion.promptSuffix)).toEqual(
        on.engine.requests[completion.seq]!.prompt,
      );
    }
  });

  it("counts what a trimmed history costs, and a sub-agent's nothing", async () => {
    const long = (word: string): Message => ({ role: "user", content: `${word} `.repeat(40) });
    const system: Message = { role: "system", content: "You play. ".repeat(10) };
    for (const content of ["one", "two", "three", "four"])
      on.engine.lines.push({ answer: { content } });
    const first = await on.say([system, long("left")]);
    const second = await on.say([system, long("left"), first, long("right")]);
    // As frameworks trim: the oldest messages go, the system message stays.
    const last: Message = { role: "user", content: "Go." };
    await on.say([system, long("right"), second, last]);
    await on.say([{ role: "user", content: "Another agent's question. ".repeat(10) }]);
    const recorded = on.recorded();
    expect(recorded.map(({ splitReason }) => splitReason)).toEqual([
      ...[null, null, "edited_history", "new_conversation"],
    ]);
    const { splits, sequenceTokens } = usageOf(recorded);
    expect(splits!.reasons).toEqual({ edited_history: 1 });
    const ids = async (messages: Message[]) =>
      (await on.renderer.render(messages as never, null)).length;
    // Neither the system message, which is shared, nor the new one, but the one between them is read again.
    const again = (await ids([long("right")])) + on.recorded()[1]!.sampled.length;
    expect(Math.abs(splits!.tokensAgain - again)).toBeLessThan(again / 5);
    expect(sequenceTokens).toBe(
      recorded.reduce((sum, one) => sum + one.promptSuffix.length + one.sampled.length, 0),
    );
    expect(usageOf(recorded.slice(0, 2))).not.toHaveProperty("splits");
  });

  it("extends an answer that was cut by its length, closing it in the prompt", async () => {
    on.engine.lines.push(
      { answer: { content: "I was about to" }, cut: true },
      { answer: { content: "left" } },
    );
    const first: Message = { role: "user", content: "Play." };
    const cut = await on.client.chat.completions.create({ model: "m", messages: [first] });
    expect(cut.choices[0]!.finish_reason).toBe("length");
    await on.say([first, cut.choices[0]!.message, { role: "user", content: "Go." }]);
    expectExtends(on.recorded()[1]!, on.recorded()[0]!);
  });

  it("runs tools with openai-node's own loop, streaming or not", async () => {
    const moves: unknown[] = [];
    const looped = {
      model: "m",
      messages: [{ role: "user", content: "Play." }] satisfies Message[],
      tools: [
        {
          type: "function" as const,
          function: {
            name: "move",
            description: "Moves.",
            parameters: { type: "object", properties: {} },
            parse: (text: string) => JSON.parse(text) as object,
            function: (args: object) => {
              moves.push(args);
              return "moved";
            },
          },
        },
      ],
    };
    for (const stream of [false, true]) {
      on.engine.lines.push(
        { answer: { content: null, tool_calls: [moveCall('{"direction": "up"}')] } },
        { answer: { content: "Done." } },
      );
      const runner = stream
        ? on.client.chat.completions.runTools({ ...looped, stream: true })
        : on.client.chat.completions.runTools(looped);
      expect(await runner.finalContent()).toBe("Done.");
    }
    expect(moves).toEqual([{ direction: "up" }, { direction: "up" }]);
    expectExtends(on.recorded()[1]!, on.recorded()[0]!);
    expectExtends(on.recorded()[3]!, on.recorded()[2]!);
  });

  it("answers without Node's response too, whole and streamed", async () => {
    on.engine.lines.push({ answer: { content: "left" } }, { answer: { content: "right" } });
    for (const [stream, word] of [
      [false, "left"],
      [true, "right"],
    ] as const) {
      const response = await on.gateway.app.request("/v1/rollouts/ro_1/v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "?" }], stream }),
      });
      expect(response.headers.get("x-hone-policy")).toBe("m@1");
      const text = await response.text();
      expect(text.endsWith("data: [DONE]\n\n")).toBe(stream);
      // Noted after the last byte was given away, which may be read before.
      await vi.waitFor(
        () =>
          expect(on.recorded().at(-1)).toMatchObject({
            answer: { content: word },
            delivered: true,
          }),
        30_000,
      );
    }
  });

  it("takes n choices, and extends the one that the next turn repeats", async () => {
    on.engine.lines.push(
      ...["up", "down", "left", "ok"].map((content) => ({ answer: { content } })),
    );
    const first: Message = { role: "user", content: "Play." };
    const { choices } = await on.client.chat.completions.create({
      model: "m",
      messages: [first],
      n: 3,
    });
    expect(choices.map((choice) => choice.message.content)).toEqual(["up", "down", "left"]);
    await on.say([first, choices[1]!.message, { role: "user", content: "Go." }]);
    expect(on.recorded().map(({ seq, choice, choices: of }) => [seq, choice, of])).toEqual([
      [0, 0, 3],
      [1, 1, 3],
      [2, 2, 3],
      [3, 0, 1],
    ]);
    const [, second] = on.recorded();
    expect(on.recorded()[3]!.parentId).toBe(second!.id);
  });

  it("does not train an answer that the SDK asked for again", async () => {
    const messages: Message[] = [{ role: "user", content: "Say." }];
    on.engine.lines.push({ answer: { content: "one" } }, { answer: { content: "two" } });
    await on.say(messages);
    await on.say(messages);
    // Asked twice is answered twice; only a request that the SDK counts as a retry takes one back.
    expect(on.recorded().map(({ delivered }) => delivered)).toEqual([true, true]);
    on.engine.lines.push({ answer: { content: "three" } }, { answer: { content: "3" } });
    const retry = { headers: { "x-stainless-retry-count": "1" } };
    await on.client.chat.completions.create({ model: "m", messages, n: 2 }, retry);
    const flags = () => on.recorded().map(({ delivered }) => delivered);
    expect(flags()).toEqual([true, false, true, true]);
    on.engine.lines.push({ answer: { content: "four" } });
    await on.client.chat.completions.create({ model: "m", messages }, retry);
    expect(flags()).toEqual([true, false, false, false, true]);
    expect(on.gateway.counters.retried).toBe(3);
  });

  it("takes nothing back for a retry of a call that it saw fail", async () => {
    const messages: Message[] = [{ role: "user", content: "Say." }];
    on.engine.lines.push({ answer: { content: "one" } });
    await on.say(messages);
    // The same question beside it breaks: nothing is left to say.
    await expect(on.say(messages)).rejects.toMatchObject({ status: 500 });
    on.engine.lines.push({ answer: { content: "two" } });
    const retry = { headers: { "x-stainless-retry-count": "1" } };
    await on.client.chat.completions.create({ model: "m", messages }, retry);
    expect(on.recorded().map(({ delivered }) => delivered)).toEqual([true, true]);
  });

  it("keeps concurrent calls of one rollout apart, and their order without gaps", async () => {
    const words = Array.from({ length: 12 }, (_, i) => `w${i}`);
    on.engine.lines.push(
      ...words.map((content, i) => ({ answer: { content }, paceMs: (i * 7) % 5 })),
    );
    const answers = await Promise.all(
      words.map((_, i) => on.say([{ role: "user", content: `Question ${i}` }])),
    );
    expect(new Set(answers.map((answer) => answer.content)).size).toBe(12);
    expect(on.recorded().map((completion) => completion.seq)).toEqual([...Array(12).keys()]);
    expect(on.recorded().every((completion) => completion.delivered)).toBe(true);
  });

  it("records nothing outside a rollout", async () => {
    on.engine.lines.push({ answer: { content: "hi" } });
    const plain = on.gateway.client();
    const { model } = await plain.chat.completions.create({
      model: "m",
      messages: [{ role: "user", content: "Play." }],
    });
    expect(model).toBe("m@1");
    expect(on.gateway.ledger.all).toEqual([]);
  });
});
