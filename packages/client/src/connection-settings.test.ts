import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { resolveSettings } from "./connection-settings.ts";

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "hone-client-"));
});
afterEach(() => rm(home, { recursive: true }));

describe("where the server is", () => {
  it("takes options before the environment, and that before the server of this machine", async () => {
    await writeFile(
      join(home, "server.json"),
      JSON.stringify({ url: "http://127.0.0.1:3", pid: process.pid }),
    );
    await writeFile(join(home, "key"), "from-file\n");
    const environment = { HONE_HOME: home, HONE_URL: "http://127.0.0.1:2", HONE_API_KEY: "env" };
    expect(
      resolveSettings({ baseURL: "http://127.0.0.1:1/v1/", apiKey: "given" }, environment),
    ).toMatchObject({ serverURL: "http://127.0.0.1:1", apiKey: "given" });
    expect(resolveSettings({}, environment)).toMatchObject({
      serverURL: "http://127.0.0.1:2",
      apiKey: "env",
    });
    expect(resolveSettings({}, { HONE_HOME: home })).toMatchObject({
      serverURL: "http://127.0.0.1:3",
      apiKey: "from-file",
    });
  });

  it("says how to start a server where there is none", () => {
    expect(() => resolveSettings({}, { HONE_HOME: home })).toThrow(/npx @hone\/server serve/);
    expect(() => resolveSettings({ baseURL: "localhost" }, {})).toThrow(
      expect.objectContaining({ code: "invalid_config" }),
    );
  });

  it("refuses numbers that mean nothing", () => {
    const base = { baseURL: "http://h", apiKey: "k" };
    expect(() => resolveSettings({ ...base, maxRetries: -1 })).toThrow(/maxRetries/);
    expect(() => resolveSettings({ ...base, timeoutMs: Number.NaN })).toThrow(/timeoutMs/);
  });
});
