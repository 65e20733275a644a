import { HoneError } from "@hone/core";
import { expect, it } from "vitest";
import { checkEngines } from "./server-engines.ts";

type Options = Parameters<typeof checkEngines>[0];
const byURL = { engineURL: "http://127.0.0.1:1" } satisfies Options;
const vllm = { engine: "vllm" } satisfies Options;
const joined = { engine: "joined" } satisfies Options;

function refusedParam(options: Options): string | undefined {
  try {
    checkEngines(options);
  } catch (error) {
    if (!HoneError.isInstance(error) || error.code !== "invalid_config") throw error;
    // It says what to do.
    expect(error.message).toMatch(/\b(Leave|Add|Give|add|leave|take|takes) /);
    return error.param ?? undefined;
  }
  return undefined;
}

// Each option that has a meaning with some engines only, with each of the others.
it.each<[keyof Options, Options[]]>([
  ["engineKey", [{ engineKey: "k" }, { ...vllm, engineKey: "k" }, { ...joined, engineKey: "k" }]],
  ["engineMaxSequences", [{}, vllm, joined].map((one) => ({ ...one, engineMaxSequences: 8 }))],
  ["replicas", [{}, byURL, joined].map((one) => ({ ...one, replicas: 2 }))],
  ["vllmFlags", [{}, byURL, joined].map((one) => ({ ...one, vllmFlags: ["--seed", "1"] }))],
  ["maxStaleness", [{}, byURL].map((one) => ({ ...one, maxStaleness: 1 }))],
  ["maxStaleness", [{ ...vllm, maxStaleness: 1, vllmFlags: ["--max-loras=4"] }]],
  ["quantize", [byURL, vllm, joined].map((one) => ({ ...one, quantize: "nf4" as const }))],
  ["kvCacheMib", [byURL, vllm, joined].map((one) => ({ ...one, kvCacheMib: 64 }))],
  ["engineShare", [byURL, vllm, joined].map((one) => ({ ...one, engineShare: 0.5 }))],
  ["engineShare", [{ kvCacheMib: 64, engineShare: 0.5 }]],
  [
    "engineProcess",
    [byURL, vllm, joined].map((one) => ({ ...one, engineProcess: "own" as const })),
  ],
  ["engineProcess", [{ engineProcess: "own", device: "cuda" }]],
  ["paths", [byURL, vllm, joined].map((one) => ({ ...one, paths: "decode=eager" }))],
  [
    "publishDeadlineMs",
    [{ publishDeadlineMs: 1_000 }, { publishDeadlineMs: 1, engine: "embedded" }],
  ],
  ["sleep", [{}, byURL, vllm, joined].map((one) => ({ ...one, sleep: true }))],
  ["sleep", [{ ...vllm, device: "cuda", replicas: 2, sleep: true }]],
  [
    "engine",
    [
      { ...byURL, engine: "embedded" },
      { ...byURL, ...vllm },
      { ...byURL, ...joined },
    ],
  ],
  ["engineURL", [{ engineURL: ["http://127.0.0.1:1", "http://127.0.0.1:1"] }]],
])("%s is refused by name where it would do nothing", (param, all) => {
  expect(all.map(refusedParam)).toEqual(all.map(() => param));
});

it("each is taken where it has a meaning", () => {
  const own: Options = { kvCacheMib: 64, engineProcess: "own", paths: "decode=eager" };
  expect(checkEngines(own)).toMatchObject({ engineApart: true, joinedOnly: false });
  const urls: Options = { ...byURL, engineKey: "k", engineMaxSequences: 8, publishDeadlineMs: 1 };
  expect(checkEngines(urls)).toMatchObject({ engineURLs: [byURL.engineURL] });
  const joining: Options = { ...joined, maxStaleness: 1, publishDeadlineMs: 1 };
  expect(checkEngines(joining)).toMatchObject({ joinedOnly: true });
});
