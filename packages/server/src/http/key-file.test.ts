import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, it } from "vitest";
import { checkExposure, serverKey } from "./key-file.ts";

const parent = mkdtempSync(join(tmpdir(), "hone-key-"));
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(parent, "data-"));
});
afterAll(() => rmSync(parent, { recursive: true }));

it("is made once, for its owner's eyes only", () => {
  const made = serverKey(dir, "");
  expect(made.file).toBe(join(dir, "key"));
  expect(statSync(made.file).mode & 0o777).toBe(0o600);
  // 256 random bits.
  expect(made.key).toMatch(/^hone_[\w-]{43}$/);
  expect(serverKey(dir, "").key).toBe(made.key);
  expect(readFileSync(made.file, "utf8").trim()).toBe(made.key);
});

it("is another one in another directory", () => {
  expect(serverKey(dir, "").key).not.toBe(serverKey(mkdtempSync(join(parent, "b-")), "").key);
});

it("can be given, and is not written then", () => {
  expect(serverKey(dir, "mine").key).toBe("mine");
  expect(() => statSync(join(dir, "key"))).toThrow("ENOENT");
  expect(() => serverKey(dir, "two words")).toThrow("one word");
});

it("can be changed; the old one is nowhere then", () => {
  const made = serverKey(dir, "");
  const old = made.key;
  const next = made.rotate();
  expect(next).toMatch(/^hone_[\w-]{43}$/);
  expect(next).not.toBe(old);
  expect(made.key).toBe(next);
  expect(serverKey(dir, "").key).toBe(next);
  expect(statSync(made.file).mode & 0o777).toBe(0o600);
  expect(readdirSync(dir)).toEqual(["key"]);
  expect(() => serverKey(dir, "mine").rotate()).toThrow("Change it there");
});

it.each([0o666, 0o644, 0o602])("is not taken from a file of mode %o", (mode) => {
  const { file } = serverKey(dir, "");
  chmodSync(file, mode);
  expect(() => serverKey(dir, "")).toThrow(`chmod 600 ${file}`);
  chmodSync(file, 0o400);
  expect(serverKey(dir, "").key).toMatch(/^hone_/);
});

it("is its owner's alone again where a mount has let the group in", () => {
  const { file, key } = serverKey(dir, "");
  chmodSync(file, 0o660);
  expect(serverKey(dir, "").key).toBe(key);
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

it("is not waited for where its file is a pipe", () => {
  execFileSync("mkfifo", [join(dir, "key")]);
  expect(() => serverKey(dir, "")).toThrow("is no key file");
});

it("refuses a damaged file rather than an empty key", () => {
  writeFileSync(join(dir, "key"), "\n", { mode: 0o600 });
  expect(() => serverKey(dir, "")).toThrow("Delete it");
});

it("must be strong where others can reach the server", () => {
  for (const host of ["127.0.0.1", "localhost", "::1"])
    expect(() => checkExposure(host, "x")).not.toThrow();
  for (const host of ["0.0.0.0", "::", "192.168.0.7", "127.0.0.1.example"]) {
    expect(() => checkExposure(host, "guessable")).toThrow("at least 22");
    expect(() => checkExposure(host, "a".repeat(22))).toThrow("that can be guessed");
    expect(() => checkExposure(host, "q7Jm2_vKx0Zt-R9cWb4LeN")).not.toThrow();
  }
});
