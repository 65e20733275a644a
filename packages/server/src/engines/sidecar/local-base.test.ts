import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { keepInHubCache } from "../../testing/hub-cache.ts";
import { baseFingerprint } from "../base-fingerprint.ts";
import { baseBytes, lookAtBase } from "./local-base.ts";

const name = "Owner/base-1B";
const served = {
  ...({ name, dtype: "bfloat16", quantize: null, fingerprint: null } as const),
  ...{ maxModelLen: 512, rank: 8, slots: 6 },
};
const own = { engine: { python: "python", device: "cpu" as const, flags: [] } };
const others = { engine: { url: "http://127.0.0.1:1", key: null } };
let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "hone-local-base-"));
  vi.stubEnv("HF_HUB_CACHE", cache);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(cache, { recursive: true });
});

it("a hub id is known by its files once they are here", async () => {
  const before = await lookAtBase(own, served);
  expect(before).toEqual({ source: name, fingerprint: null, shapes: new Map() });
  expect(baseBytes(before, "bfloat16")).toBe(0);
  const folder = keepInHubCache(cache, name);
  const fingerprint = await baseFingerprint(folder);
  const after = await lookAtBase(own, { ...served, fingerprint });
  expect(after).toMatchObject({ source: name, fingerprint });
  expect(after.shapes.get("model.layers.0.mlp.up_proj.weight")).toEqual([16, 16]);
  expect(baseBytes(after, "bfloat16")).toBe(4 * 16 * 16 * 2);
  expect(baseBytes(after, "float32")).toBe(4 * 16 * 16 * 4);
});

it("other files under the same hub id are refused", async () => {
  const fingerprint = await baseFingerprint(keepInHubCache(cache, name));
  keepInHubCache(cache, name, 1);
  await expect(lookAtBase(own, { ...served, fingerprint })).rejects.toMatchObject({
    ...{ code: "base_mismatch", message: expect.stringContaining(join(cache, "models--Owner")) },
  });
  // A vLLM that others run may have its files in another place, unless they say that these are it.
  expect(await lookAtBase(others, { ...served, fingerprint })).toMatchObject({ fingerprint: null });
  await expect(
    lookAtBase({ ...others, base: name }, { ...served, fingerprint }),
  ).rejects.toMatchObject({ code: "base_mismatch" });
});

it("what is neither a folder nor a hub id is refused for a vLLM of its own alone", async () => {
  const short = { ...served, name: "base" };
  await expect(lookAtBase(own, short)).rejects.toMatchObject({
    ...{ code: "invalid_config", param: "base" },
  });
  expect(await lookAtBase(others, short)).toMatchObject({ source: "base", fingerprint: null });
});
