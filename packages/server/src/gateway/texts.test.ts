import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { workerPython } from "../testing/running-engine.ts";
import { useScriptedGateway } from "../testing/scripted-gateway.ts";
import { serveGateway } from "../testing/served-gateway.ts";

type Message = OpenAI.ChatCompletionMessageParam;

describe.skipIf(!workerPython())("texts that come in any form", () => {
  const on = useScriptedGateway();

  it("takes half a character anywhere in a request for U+FFFD, and goes on from there", async () => {
    const half = "😀".slice(0, 1);
    const odd = [
      {
        type: "function" as const,
        function: {
          name: `move${half}`,
          description: `moves ${half}`,
          parameters: { type: "object", properties: { [half]: { enum: [half] } } },
        },
      },
    ];
    const call = {
      id: "call_1",
      type: "function" as const,
      function: { name: "move", arguments: '{"to": "\\ud83d"}' },
    };
    on.engine.lines.push({ answer: { content: "Hm." } }, { answer: { content: "So." } });
    const messages: Message[] = [
      { role: "system", content: half },
      { role: "user", content: [{ type: "text", text: `a${half}` }] },
      { role: "assistant", content: half, tool_calls: [call] },
      { role: "tool", tool_call_id: "call_1", content: `${half}${half}` },
    ];
    const ask = { tools: odd, stop: [`${half}!`] };
    messages.push(await on.say(messages, ask), { role: "user", content: `${half} and?` });
    await on.say(messages, ask);
    const [first, second] = on.recorded();
    expect(second).toMatchObject({ parentId: first!.id, splitReason: null });
    expect(first!.messages[1]).toMatchObject({ content: [{ text: "a\ufffd" }] });
    expect(first!.tools![0]!.function.name).toBe("move\ufffd");
    expect(on.engine.requests[0]!.stop).toEqual(["\ufffd!"]);
    const tokens = await on.renderer.tokens(on.engine.requests[0]!.prompt);
    const prompt = Buffer.from(tokens.flatMap(({ bytes }) => bytes)).toString();
    expect(prompt).toContain("a\ufffd");
  });

  it("takes a refusal of the assistant for what it said", async () => {
    on.engine.lines.push({ answer: { content: "Sorry." } }, { answer: { content: "So." } });
    const messages: Message[] = [{ role: "user", content: "Do it." }];
    await on.say(messages);
    messages.push(
      { role: "assistant", content: [{ type: "refusal", refusal: "Sorry." }] },
      { role: "user", content: "Why?" },
    );
    await on.say(messages);
    expect(on.recorded()[1]).toMatchObject({ parentId: on.recorded()[0]!.id, splitReason: null });
    // One that was not sampled here is rendered, from either field.
    const ids = async (refused: object) =>
      on.renderer.render([{ role: "assistant", ...refused } as never, messages[2] as never], null);
    expect(await ids({ refusal: "No way." })).toEqual(await ids({ content: "No way." }));
    expect(await ids({ content: [{ type: "refusal", refusal: "No way." }] })).toEqual(
      await ids({ content: "No way." }),
    );
  });

  it("names a policy in its header, whatever its base is called", async () => {
    const named = await serveGateway(on.engine, on.renderer, "модель 100%é\n");
    try {
      on.engine.lines.push({ answer: { content: "Hm." } });
      const { data, response } = await named
        .client()
        .chat.completions.create({ model: "m", messages: [{ role: "user", content: "x" }] })
        .withResponse();
      const header = response.headers.get("x-hone-policy")!;
      expect(header).toMatch(/^[\x20-\x7e]+$/);
      expect(decodeURIComponent(header)).toBe("модель 100%é\n");
      expect(data.model).toBe("модель 100%é\n");
    } finally {
      await named.close();
    }
  });
});
