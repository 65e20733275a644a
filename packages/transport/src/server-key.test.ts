import { describe, expect, it } from "vitest";
import { findServer } from "./server-key.ts";
import type { Announced, ServerSources } from "./server-key.ts";

const here: Announced = { server: { url: "http://127.0.0.1:3", key: "file" } };
const nowhere: Announced = { server: null, absence: "No Hone server runs on /data (it is empty)" };
const env = (url: string, key: string) => ({ HONE_URL: url, HONE_API_KEY: key });

/** The server and its key; "none" where the key is withheld. */
function found(sources: Partial<ServerSources>): string {
  const asked = { environment: {}, announced: nowhere, ...sources };
  try {
    const { serverURL, apiKey } = findServer(asked);
    return `${serverURL} ${apiKey}`;
  } catch (error) {
    expect(error).toMatchObject({ code: "invalid_config", param: "apiKey" });
    return "none";
  }
}

describe("which server, and its key", () => {
  const environment = env("http://env:2", "env");
  it.each<[string, Partial<ServerSources>, string]>([
    [
      "what the call says, before all else",
      { baseURL: "http://call:1/v1/", apiKey: "call", environment, announced: here },
      "http://call:1 call",
    ],
    ["the environment, before files", { environment, announced: here }, "http://env:2 env"],
    ["files", { announced: here }, "http://127.0.0.1:3 file"],
    [
      "a data directory that the call names, before the environment",
      { environment, announced: here, dataDirNamed: true },
      "http://127.0.0.1:3 file",
    ],
    [
      "an empty variable is none",
      { environment: env("", ""), announced: here },
      "http://127.0.0.1:3 file",
    ],
    [
      "a path prefix stays",
      { baseURL: "https://h.example/hone/v1", apiKey: "k" },
      "https://h.example/hone k",
    ],
  ])("%s", (_, sources, expected) => expect(found(sources)).toBe(expected));

  it.each<[string, Partial<ServerSources>, string]>([
    ["at another port", { baseURL: "http://127.0.0.1:4", announced: here }, "none"],
    ["by another scheme", { baseURL: "https://127.0.0.1:3", announced: here }, "none"],
    ["on another host", { baseURL: "http://h.example:3", announced: here }, "none"],
    ["on the other loopback", { baseURL: "http://[::1]:3", announced: here }, "none"],
    [
      "by its other name",
      { baseURL: "http://localhost:3/v1", announced: here },
      "http://localhost:3 file",
    ],
    [
      "of HONE_URL's origin, that of the environment",
      { environment: env("http://127.0.0.1:3", "env"), announced: here },
      "http://127.0.0.1:3 env",
    ],
    [
      "of HONE_URL without its key, that of the file",
      { environment: { HONE_URL: "http://127.0.0.1:3" }, announced: here },
      "http://127.0.0.1:3 file",
    ],
  ])("the key of a file goes to no server but its own: %s", (_, sources, expected) =>
    expect(found(sources)).toBe(expected),
  );

  it.each<[string, Partial<ServerSources>, string]>([
    ["another server of the call", { baseURL: "http://call:1", environment }, "none"],
    ["a named data directory", { announced: here, dataDirNamed: true }, "http://127.0.0.1:3 file"],
    [
      "a named data directory without a key",
      {
        environment,
        announced: { server: { url: "http://127.0.0.1:3", key: null } },
        dataDirNamed: true,
      },
      "none",
    ],
    [
      "any server, where HONE_URL is unset",
      { baseURL: "http://call:1", environment: { HONE_API_KEY: "env" } },
      "http://call:1 env",
    ],
    [
      "no server, where HONE_URL is no URL",
      { baseURL: "http://call:1", environment: env("call:1/x y", "env") },
      "none",
    ],
  ])("HONE_API_KEY goes to the server of HONE_URL: %s", (_, sources, expected) =>
    expect(found(sources)).toBe(expected),
  );

  it("says why there is no server, who needs it, and how to start one", () => {
    expect(() =>
      findServer({ environment: {}, announced: nowhere }, { label: "the judge" }),
    ).toThrow(
      /^No Hone server runs on \/data \(it is empty\), and the judge needs one\. Start one with `npx @hone\/server serve`/,
    );
  });

  it.each(["", " ", "two words", "ключ", 7, null])(
    "refuses %j as a key, and quotes none",
    (key) => {
      const asked = { baseURL: "http://h", apiKey: key as string, environment: {} };
      const wanted = key === null ? /No API key|printable ASCII/ : /printable ASCII/;
      expect(() => findServer({ ...asked, announced: nowhere })).toThrow(wanted);
    },
  );

  it.each(["localhost", "ftp://h", "http://user@h", "http://user:s3cret@h", 7])(
    "refuses %j as a URL",
    (url) => {
      const asked = { baseURL: url as string, apiKey: "k", environment: {}, announced: nowhere };
      expect(() => findServer(asked)).toThrow(expect.objectContaining({ param: "baseURL" }));
      expect(() => findServer(asked)).not.toThrow(/s3cret/);
    },
  );
});
