import { describe, expect, it } from "vitest";
import { endedBy } from "./ended-by.ts";
import { Transport } from "./transport.ts";

/** A response that knows no signal, and what became of its body. */
function forgetful(chunks: number) {
  const fate: { cancelled?: unknown } = {};
  let sent = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent < chunks) controller.enqueue(new Uint8Array([sent++]));
      else if (chunks === 2) controller.close();
    },
    cancel: (reason) => void (fate.cancelled = reason),
  });
  return { fate, response: new Response(body, { status: 201, headers: { "x-a": "b" } }) };
}

describe("a stream that is opened with a signal", () => {
  it("ends with it while its reader waits, also by a fetch that has forgotten the signal", async () => {
    const { fate, response: given } = forgetful(1);
    const transport = new Transport({
      ...{
        serverURL: "http://127.0.0.1:1",
        apiKey: "the-key",
        fetch: () => Promise.resolve(given),
      },
      ...{ maxRetries: 0, timeoutMs: 60_000 },
    });
    const hangUp = new AbortController();
    const response = await transport.open("GET", "/x", { signal: hangUp.signal });
    expect([response.status, response.headers.get("x-a")]).toEqual([201, "b"]);
    const reader = response.body?.getReader();
    expect(await reader?.read()).toEqual({ done: false, value: new Uint8Array([0]) });
    const waiting = reader?.read();
    hangUp.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    expect(fate.cancelled).toEqual(new Error("enough"));
  });

  it("ends with it though nobody reads what is there", async () => {
    const { fate, response } = forgetful(100);
    const hangUp = new AbortController();
    const reader = endedBy(hangUp.signal, response).body?.getReader();
    await reader?.read();
    await new Promise((resolve) => setTimeout(resolve, 10));
    hangUp.abort(new Error("enough"));
    expect(fate.cancelled).toEqual(new Error("enough"));
    await expect(reader?.read()).rejects.toThrow("enough");
  });

  it("is read to its end, and its reader may stop it", async () => {
    const { signal } = new AbortController();
    const whole = endedBy(signal, forgetful(2).response);
    expect(new Uint8Array(await whole.arrayBuffer())).toEqual(new Uint8Array([0, 1]));
    const { fate, response } = forgetful(100);
    await endedBy(signal, response).body?.cancel("done");
    expect(fate.cancelled).toBe("done");
  });

  it("is no stream any more where the signal has aborted before", async () => {
    const { fate, response } = forgetful(100);
    await expect(endedBy(AbortSignal.abort(new Error("late")), response).text()).rejects.toThrow(
      "late",
    );
    expect(fate.cancelled).toEqual(new Error("late"));
  });
});
