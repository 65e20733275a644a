import { HoneError } from "@hone/core";
import { expect, it } from "vitest";
import { inOwnWords, messagesFields, responsesFields } from "./own-fields.ts";

const refused = (message: string, param: string) =>
  new HoneError(message, { code: "unsupported_parameter", param });

it("names the fields of the dialect, and keeps what else an error has", () => {
  const single = refused("parallel_tool_calls: no `stop` beside it.", "parallel_tool_calls");
  const own = inOwnWords(single, messagesFields);
  expect(own).toMatchObject({
    ...{ code: "unsupported_parameter", status: 400, cause: single },
    message: "tool_choice.disable_parallel_tool_use: no `stop_sequences` beside it.",
    param: "tool_choice.disable_parallel_tool_use",
  });
  // Responses call it as chats do.
  expect(inOwnWords(single, responsesFields)).toBe(single);
  const part = refused("messages[2] has a picture.", "messages[2].content");
  expect(inOwnWords(part, responsesFields)).toMatchObject({
    message: part.message,
    param: "input",
  });
  const busy = new HoneError("No response_format now.", {
    code: "engine_unavailable",
    retryAfterMs: 5,
  });
  expect(inOwnWords(busy, responsesFields)).toMatchObject({
    ...{ message: "No text.format now.", param: null, retryAfterMs: 5 },
  });
});

it("leaves errors of others as they are", () => {
  const other = new TypeError("response_format");
  expect(inOwnWords(other, messagesFields)).toBe(other);
  expect(inOwnWords(refused("response_format", "x"), [])).toMatchObject({
    message: "response_format",
  });
});
