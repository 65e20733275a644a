import { messagesRequestSchema } from "@hone/core";
import { describe, expect, it } from "vitest";
import { issuesToError } from "../../../http/json.ts";
import { readMessages } from "./read.ts";

const user = { role: "user", content: "?" };
const tool = { name: "go", input_schema: { type: "object" } };

function read(rest: Record<string, unknown>) {
  const given = { model: "m", max_tokens: 9, messages: [user], ...rest };
  const checked = messagesRequestSchema.safeParse(given);
  if (!checked.success) throw issuesToError(checked.error.issues);
  return readMessages(checked.data);
}

describe("a request of Anthropic's", () => {
  it("is the same ask as a chat", () => {
    const ask = read({
      system: [
        { type: "text", text: "Be" },
        { type: "text", text: "brief.", cache_control: {} },
      ],
      tools: [
        { ...tool, type: "custom", description: "goes", cache_control: { type: "ephemeral" } },
      ],
      stop_sequences: ["x"],
      thinking: { type: "enabled", budget_tokens: 1024 },
      metadata: { user_id: "u" },
      service_tier: "auto",
    });
    expect(ask).toEqual({
      kind: "chat",
      param: "messages",
      model: "m",
      messages: [{ role: "system", content: "Be\n\nbrief." }, user],
      tools: [
        {
          type: "function",
          function: { name: "go", description: "goes", parameters: { type: "object" } },
        },
      ],
      callable: ask.tools,
      format: null,
      n: 1,
      maxTokens: 9,
      temperature: 1,
      topP: 1,
      seed: null,
      stop: ["x"],
      logprobs: null,
      stream: false,
    });
  });

  it("is held to a schema by output_config", () => {
    const schema = { type: "object" };
    const asked = { output_config: { format: { type: "json_schema", schema } } };
    expect(read(asked).format).toEqual({ type: "json_schema", schema });
    expect(read({ ...asked, tools: [tool], tool_choice: { type: "none" } }).format).not.toBeNull();
  });

  it("calls as tool_choice says, beside a format too", () => {
    const asked = (choice: object, more: object = {}) =>
      read({ tools: [tool, { ...tool, name: "stay" }], tool_choice: choice, ...more });
    const names = (ask: ReturnType<typeof asked>) => ask.callable?.map((one) => one.function.name);
    expect(asked({ type: "any" })).toMatchObject({ mustCall: true });
    const named = asked({ type: "tool", name: "stay", disable_parallel_tool_use: true });
    expect(named).toMatchObject({ mustCall: true, oneCall: true });
    expect([names(named), named.tools?.length]).toEqual([["stay"], 2]);
    const auto = asked({ type: "auto", disable_parallel_tool_use: true });
    expect(auto).toMatchObject({ oneCall: true });
    expect(auto).not.toHaveProperty("mustCall");
    const format = { type: "json_schema", schema: { type: "object" } };
    const either = asked({ type: "auto" }, { output_config: { format } });
    expect(either.format).toEqual(format);
    expect(names(either)).toEqual(["go", "stay"]);
    expect(names(asked({ type: "none" }))).toBeUndefined();
  });

  it("says of a failed call that it failed, once", () => {
    const said = (content: unknown) =>
      read({
        messages: [
          {
            role: "user",
            content: [{ type: "tool_result", tool_use_id: "c", is_error: true, content }],
          },
        ],
      }).messages[0]!.content;
    expect(said("no such mail")).toBe("Error: no such mail");
    expect(said("Error: no such mail")).toBe("Error: no such mail");
    expect(said([{ type: "text", text: "[ERROR] x" }])).toBe("[ERROR] x");
    expect(said(undefined)).toBe("Error");
  });

  const inUser = (block: unknown) => ({ messages: [{ role: "user", content: [block] }] });
  it.each<[string, Record<string, unknown>, string, RegExp]>([
    [
      "an image",
      inUser({ type: "image", source: {} }),
      "messages[0].content[0].type",
      /image blocks are not read: models here read text only/,
    ],
    [
      "a document",
      inUser({ type: "document", source: {} }),
      "messages[0].content[0].type",
      /document's text/,
    ],
    [
      "a redacted thought",
      {
        messages: [
          { role: "assistant", content: [{ type: "redacted_thinking", data: "x" }] },
          user,
        ],
      },
      "messages[0].content[0].type",
      /only its provider can read it/,
    ],
    [
      "a block of a server tool",
      inUser({ type: "web_search_tool_result" }),
      "messages[0].content[0].type",
      /web_search_tool_result blocks are not read here/,
    ],
    [
      "an image within a result",
      inUser({ type: "tool_result", tool_use_id: "c", content: [{ type: "image" }] }),
      "messages[0].content[0].content[0].type",
      /image blocks/,
    ],
    [
      "a server tool",
      { tools: [{ type: "web_search_20250305", name: "web_search" }] },
      "tools[0].type",
      /run it in the agent/,
    ],
    ["a tool without a schema", { tools: [{ name: "x" }] }, "tools[0].input_schema", /JSON Schema/],
    [
      "a call of no tool",
      { tools: [tool], tool_choice: { type: "tool", name: "fly" } },
      "tool_choice",
      /no tool "fly"/,
    ],
    ["a call without tools", { tool_choice: { type: "any" } }, "tool_choice", /no tools/],
    ["top_k", { top_k: 5 }, "top_k", /top_p/],
    ["MCP servers", { mcp_servers: [] }, "mcp_servers", /in the agent/],
    ["a container", { container: "c" }, "container", /as a tool/],
    ["an effort", { output_config: { effort: "low" } }, "output_config.effort", /Leave it out/],
    [
      "hidden thoughts",
      { thinking: { type: "enabled", budget_tokens: 9, display: "omitted" } },
      "thinking.display",
      /summarized/,
    ],
    [
      "an answer that is begun",
      { messages: [user, { role: "assistant", content: "I" }] },
      "messages",
      /End with a user/,
    ],
    [
      "a result behind text",
      {
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "a" },
              { type: "tool_result", tool_use_id: "c" },
            ],
          },
        ],
      },
      "messages[0].content[1]",
      /to the front/,
    ],
  ])("is refused by name with %s", (_what, rest, param, says) => {
    expect(() => read(rest)).toThrow(
      expect.objectContaining({ param, status: 400, message: expect.stringMatching(says) }),
    );
  });
});
