import { HoneError, type ErrorCode } from "@hone/core";
import { expect, test } from "vitest";
import { createReadyGate } from "../ready.ts";
import { onceThere } from "./once-there.ts";

const signal = new AbortController().signal;

/** Asks one that fails with these codes, in order, and then answers; `restarts` says after which it comes up anew. */
async function asked(codes: readonly ErrorCode[], restarts: boolean) {
  const ready = createReadyGate();
  let asks = 0;
  const answer = onceThere(
    ready,
    signal,
    () => {
      const code = codes[asks++];
      if (code === undefined) return Promise.resolve("answer");
      if (restarts) setTimeout(() => ready.opened(), 1);
      return Promise.reject(new HoneError("It is away.", { code }));
    },
    { noticeMs: 20 },
  );
  return { said: await answer.catch((error: HoneError) => error.code), asks };
}

test("one that comes back is asked again, and after three restarts no more", async () => {
  const away = ["worker_unavailable", "engine_error"] as const;
  expect(await asked(away, true)).toEqual({ said: "answer", asks: 3 });
  const dying = ["engine_error", "engine_error", "engine_error", "engine_error"] as const;
  expect(await asked(dying, true)).toEqual({ said: "engine_error", asks: 3 });
});

test("one that has too much to do is asked again; an error without a restart ends it", async () => {
  const busy = ["engine_unavailable", "engine_busy", "engine_busy"] as const;
  expect(await asked(busy, false)).toEqual({ said: "answer", asks: 4 });
  expect(await asked(["engine_error"], false)).toEqual({ said: "engine_error", asks: 1 });
  expect(await asked(["invalid_request"], true)).toEqual({ said: "invalid_request", asks: 1 });
});

test("who asks hears what is waited for, and for how long yet", async () => {
  const heard: [string, number][] = [];
  let asks = 0;
  const ask = async () => {
    if (asks++ === 2) return "answer";
    throw new HoneError(`It is away (${asks}).`, { code: "engine_unavailable" });
  };
  const onWait = (error: HoneError, leftMs: number) => void heard.push([error.message, leftMs]);
  expect(await onceThere(createReadyGate(), signal, ask, { noticeMs: 5, onWait })).toBe("answer");
  expect(heard.map(([message]) => message)).toEqual(["It is away (1).", "It is away (2)."]);
  for (const [, leftMs] of heard) {
    expect(leftMs).toBeGreaterThan(590_000);
    expect(leftMs).toBeLessThanOrEqual(600_000);
  }
});
