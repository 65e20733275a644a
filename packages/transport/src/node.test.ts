import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterEach, beforeEach, expect, it } from "vitest";
import { announce, announcedServer, withdraw } from "./node.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-announced-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const server = { url: "http://127.0.0.1:3", pid: process.pid, base: "/bases/one" };

it("a server is found with its key as long as its process lives", () => {
  announce(folder, server);
  expect(announcedServer(folder)).toEqual({ server: { ...server, key: null } });
  writeFileSync(join(folder, "key"), "the-key\n");
  expect(announcedServer(folder)).toEqual({ server: { ...server, key: "the-key" } });
  if (process.platform !== "win32") {
    expect(statSync(join(folder, "server.json")).mode & 0o077).toBe(0);
  }
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  announce(folder, { ...server, pid });
  expect(announcedServer(folder)).toEqual({
    server: null,
    absence: `No Hone server runs on ${folder} (server.json names pid ${pid}, which is gone)`,
  });
  withdraw(folder);
  expect(announcedServer(folder).absence).toContain("there is no server.json");
});

it.each([
  "",
  "null",
  '{"url": 1, "pid": 1}',
  '{"url": "http://127.0.0.1:3"}',
  '{"url": "http://127.0.0.1:3", "pid": -1}',
  '{"url": "file:///etc", "pid": 1}',
])("what names no url and pid announces nobody: %s", (text) => {
  writeFileSync(join(folder, "server.json"), text);
  writeFileSync(join(folder, "key"), "the-key\n");
  expect(announcedServer(folder).server).toBeNull();
});
