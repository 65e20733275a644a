import { APIConnectionError } from "openai";
import { expect, it } from "vitest";
import { errorInBody, mayBeBilled } from "./judge-failure.ts";
import { retryAfterMs } from "@hone/transport";

const none = new Headers();

it.each([
  ["OpenRouter's", { error: { code: 429, message: "Slow down." } }, 429],
  ["a status as text", { error: { code: "503", message: "m" } }, 503],
  ["an error in the choice", { choices: [{ finish_reason: "error", error: { code: 502 } }] }, 502],
  ["a name of a limit", { error: { code: "rate_limit_exceeded", message: "m" } }, 429],
  ["a type alone", { error: { type: "overloaded_error", message: "m" } }, 503],
  ["a wrong key", { error: { type: "authentication_error", code: null } }, 401],
  ["a text", { error: "Unexpected endpoint." }, 400],
  ["a code that is no status", { error: { code: 7, message: "m" } }, 400],
])("errorInBody: %s", (_name, body, status) => {
  expect(errorInBody(body, none)).toMatchObject({ status });
});

it("errorInBody: none where there is an answer, or nothing at all", () => {
  for (const body of [{ choices: [{ message: {} }], error: null }, {}, null, "text", []]) {
    expect(errorInBody(body, none)).toBeNull();
  }
});

it("errorInBody: the wait that the provider behind asks for, unless its own headers have one", () => {
  const body = { error: { code: 429, metadata: { headers: { "Retry-After": "7", cookie: "x" } } } };
  const wait = (headers: Headers) => retryAfterMs(errorInBody(body, headers)?.headers);
  expect(wait(none)).toBe(7000);
  expect(wait(new Headers({ "retry-after": "2" }))).toBe(2000);
  expect(errorInBody(body, none)?.headers?.has("cookie")).toBe(false);
});

it("mayBeBilled: not where the connection was never made, however deep that stands", () => {
  const refused = Object.assign(new Error("connect"), { code: "ECONNREFUSED" });
  const failed = new TypeError("fetch failed", { cause: refused });
  expect(mayBeBilled(new APIConnectionError({ cause: failed }), false)).toBe(false);
  const reset = Object.assign(new Error("read"), { code: "ECONNRESET" });
  expect(mayBeBilled(new APIConnectionError({ cause: reset }), false)).toBe(true);
});
