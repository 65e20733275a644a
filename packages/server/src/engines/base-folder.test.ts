import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { keepInHubCache, writeBase } from "../testing/hub-cache.ts";
import { baseFingerprint } from "./base-fingerprint.ts";
import { baseFolder, weightFiles } from "./base-folder.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-base-folder-"));
  vi.stubEnv("HF_HUB_CACHE", "");
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

it("a hub id is where the hub's library keeps its newest files", () => {
  vi.stubEnv("HF_HOME", join(folder, "home"));
  expect(baseFolder("Owner/base-1B")).toBeNull();
  const kept = keepInHubCache(join(folder, "home", "hub"), "Owner/base-1B");
  expect(baseFolder("Owner/base-1B")).toBe(kept);
  expect(baseFolder("Owner/other")).toBeNull();
  expect(baseFolder("./no-folder")).toBeNull();
  expect(baseFolder(kept)).toBe(kept);
  vi.stubEnv("HF_HUB_CACHE", join(folder, "elsewhere"));
  expect(baseFolder("Owner/base-1B")).toBeNull();
});

it("a base has one fingerprint, whatever else was downloaded beside it, and none while a file is missing", async () => {
  writeBase(folder);
  const fingerprint = await baseFingerprint(folder);
  expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
  writeFileSync(join(folder, "consolidated.safetensors"), "the same weights in another form");
  expect(await baseFingerprint(folder)).toBe(fingerprint);
  expect(weightFiles(folder)).toEqual([join(folder, "model.safetensors")]);

  const sharded = join(folder, "sharded");
  mkdirSync(sharded);
  const map = { a: "model-2.safetensors", b: "model-1.safetensors", c: "model-1.safetensors" };
  writeFileSync(
    join(sharded, "model.safetensors.index.json"),
    JSON.stringify({ metadata: {}, weight_map: map }),
  );
  writeFileSync(join(sharded, "model-1.safetensors"), "one");
  expect(await baseFingerprint(sharded)).toBeNull();
  writeFileSync(join(sharded, "model-2.safetensors"), "two");
  const both = ["model-1.safetensors", "model-2.safetensors"].map((name) => join(sharded, name));
  expect(weightFiles(sharded)).toEqual(both);
  expect(await baseFingerprint(sharded)).not.toBeNull();
  expect(await baseFingerprint(join(folder, "nowhere"))).toBeNull();
});
