import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { makeFolder } from "./folder-node.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-folder-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

it("makes a folder and its missing parents, and leaves one that is there as it is", () => {
  const deep = join(folder, "one", "two");
  makeFolder(deep, { mode: 0o700 });
  for (const one of [deep, join(folder, "one")]) expect(statSync(one).mode & 0o777).toBe(0o700);
  makeFolder(deep, { mode: 0o755 });
  expect(statSync(deep).mode & 0o777).toBe(0o700);
  const link = join(folder, "link");
  symlinkSync(deep, link);
  makeFolder(join(link, "three"));
  expect(statSync(join(deep, "three")).isDirectory()).toBe(true);
});

it("says which folder cannot be made, and of which option", () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  for (const path of [file, join(file, "deep", "run")]) {
    expect(() => makeFolder(path, { what: "data directory", param: "out" })).toThrow(
      expect.objectContaining({
        ...{ code: "invalid_config", param: "out" },
        message: expect.stringMatching(
          `^The data directory ${path} cannot be made \\(EEXIST.*\\)\\. Name another one\\.$`,
        ) as string,
      }),
    );
  }
});

it.runIf(existsSync("/proc/self"))("ends where even root can make nothing", () => {
  for (const path of ["/proc/hone", "/proc/self/hone/run"]) {
    expect(() => makeFolder(path)).toThrow(
      expect.objectContaining({ code: "invalid_config", message: expect.stringMatching(path) }),
    );
  }
});
