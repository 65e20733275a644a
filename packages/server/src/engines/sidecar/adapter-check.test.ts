import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { makeAdapter } from "../../testing/joinable-server.ts";
import { checkAdapter } from "./adapter-check.ts";

const folder = mkdtempSync(join(tmpdir(), "hone-adapter-check-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const layer = "base_model.model.layers.0.q_proj";
const limits = { maxRank: 16, baseShapes: new Map([["layers.0.q_proj.weight", [16, 16]]]) };

/** Checks a file of two tensors whose words are given. */
async function check(dtype: "F32" | "F16" | "BF16", words: number[], name = `${layer}.lora_A`) {
  const array = dtype === "F32" ? new Uint32Array(128) : new Uint16Array(128);
  const pair = { A: new Uint8Array(array.buffer.slice(0)), B: new Uint8Array(array.buffer) };
  array.set(words, 128 - words.length);
  const size = pair.A.length;
  const header = Buffer.from(
    JSON.stringify({
      [`${name}.weight`]: { dtype, shape: [8, 16], data_offsets: [0, size] },
      [`${layer}.lora_B.weight`]: { dtype, shape: [16, 8], data_offsets: [size, 2 * size] },
    }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return await checkBytes(Buffer.concat([length, header, pair.A, pair.B]));
}

async function checkBytes(
  bytes: Buffer,
  config: object = { peft_type: "LORA", r: 8 },
  fits: Parameters<typeof checkAdapter>[2] = limits,
) {
  const made = mkdtempSync(join(folder, "adapter-"));
  writeFileSync(join(made, "adapter_model.safetensors"), bytes);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const wanted = { policy: "m@1", sha256, bytes: bytes.length, rank: 8 };
  await checkAdapter(made, { ...wanted, config: JSON.stringify(config) }, fits);
}

it.each<["F32" | "F16" | "BF16", number[], number[][]]>([
  // The largest finite numbers, and the smallest; then infinities and NaN of either sign.
  ["F32", [0x7f7fffff, 0xff7fffff, 1, 0x80000000], [[0x7f800000], [0xff800000], [0x7fc00001]]],
  ["F16", [0x7bff, 0xfbff, 1, 0x8000], [[0x7c00], [0xfc00], [0x7e01]]],
  ["BF16", [0x7f7f, 0xff7f, 1, 0x8000], [[0x7f80], [0xff80], [0x7fc1]]],
])("numbers of %s are finite or not, exactly", async (dtype, finite, others) => {
  await expect(check(dtype, finite)).resolves.toBeUndefined();
  for (const words of others) {
    await expect(check(dtype, words)).rejects.toThrow(/lora_B.* has NaN or infinity/);
  }
});

it.each<[string, () => Promise<void>, RegExp]>([
  ["a layer of another size", () => checkWith({ baseShape: [16, 32] }), /another base/],
  ["no LoRA tensor", () => check("F32", [], "model.embed"), /no part of a LoRA adapter/],
  ["no safetensors", () => checkBytes(Buffer.alloc(64, 255)), /no safetensors file/],
  ["no header", () => checkBytes(Buffer.alloc(4)), /no safetensors file/],
  ["another rank in its config", () => checkWith({ r: 4 }), /says rank 4, the server 8/],
  ["ranks by layer", () => checkWith({ rank_pattern: { q: 4 } }), /different ranks/],
  ["another kind of adapter", () => checkWith({ peft_type: "IA3" }), /not that of a LoRA adapter/],
  ["too high a rank", () => checkWith({ maxRank: 4 }), /--max-lora-rank 8/],
])("an adapter with %s is refused", async (_, run, reason) => {
  await expect(run()).rejects.toMatchObject({
    code: "bad_adapter",
    message: expect.stringMatching(reason),
  });
});

async function checkWith({
  baseShape = [16, 16],
  maxRank = 16,
  ...config
}: { baseShape?: number[]; maxRank?: number } & Record<string, unknown>) {
  const { path, weights: _, ...adapter } = makeAdapter(folder, "m@1");
  const text = readFileSync(join(path, "adapter_config.json"), "utf8");
  const changed = JSON.stringify({ ...(JSON.parse(text) as object), ...config });
  const baseShapes = new Map([["layers.0.q_proj.weight", baseShape]]);
  await checkAdapter(path, { ...adapter, config: changed }, { maxRank, baseShapes });
}

it("a number that is not finite is found wherever the pieces begin in which the file is read", async () => {
  const columns = 163_840;
  const words = new Uint32Array(8 * columns + 128);
  const size = 8 * columns * 4;
  const header = Buffer.from(
    JSON.stringify({
      [`${layer}.lora_A.weight`]: { dtype: "F32", shape: [8, columns], data_offsets: [0, size] },
      [`${layer}.lora_B.weight`]: {
        ...{ dtype: "F32", shape: [16, 8], data_offsets: [size, size + 512] },
      },
    }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const whole = (): Buffer => Buffer.concat([length, header, Buffer.from(words.buffer)]);
  await expect(checkBytes(whole())).rejects.toThrow("another base");
  const none = { maxRank: 16, baseShapes: new Map() };
  await expect(checkBytes(whole(), undefined, none)).resolves.toBeUndefined();
  for (const at of [0, 2 ** 20 - 1, 2 ** 20, 8 * columns - 1, words.length - 1]) {
    words[at] = 0x7fc00000;
    await expect(checkBytes(whole(), undefined, none)).rejects.toThrow(
      at < 8 * columns ? "lora_A.weight has NaN" : "lora_B.weight has NaN",
    );
    words[at] = 0;
  }
});
