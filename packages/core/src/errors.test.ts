import { describe, expect, it } from "vitest";
import { errorCodes, HoneError, isErrorCode } from "./errors.ts";

describe("HoneError", () => {
  it("is OpenAI's envelope on the wire, with the table's type and status", () => {
    const error = new HoneError('Unknown model "x": create it first.', {
      code: "model_not_found",
      param: "model",
    });
    expect(error.status).toBe(404);
    expect(error.toEnvelope()).toEqual({
      error: {
        message: 'Unknown model "x": create it first.',
        type: "invalid_request_error",
        code: "model_not_found",
        param: "model",
      },
    });
  });

  it("keeps its cause and is recognised across copies of the package", () => {
    const cause = new Error("socket closed");
    const error = new HoneError("The engine died; try again.", { code: "engine_error", cause });
    expect(error.cause).toBe(cause);
    expect(HoneError.isInstance({ [Symbol.for("hone.error")]: true })).toBe(true);
    expect(HoneError.isInstance(new Error("other"))).toBe(false);
  });

  it("has a 4xx or 5xx status for every code that a response can carry", () => {
    for (const [code, { status, type }] of Object.entries(errorCodes)) {
      if (status === 0) continue;
      expect(status, code).toBeGreaterThanOrEqual(400);
      expect(type === "server_error", code).toBe(status >= 500);
    }
    expect(isErrorCode("toString")).toBe(false);
  });
});
