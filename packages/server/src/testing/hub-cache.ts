import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A base of one layer: the headers of its files are true, the numbers are not. */
export function writeBase(folder: string, seed = 0): void {
  const names = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj"];
  const bytes = 16 * 16 * 4;
  const tensors = [...names.map((name) => `model.layers.0.${name}.weight`), "lm_head.weight"];
  const header = Object.fromEntries(
    tensors.map((name, at) => {
      const data_offsets = [at * bytes, (at + 1) * bytes];
      return [name, { dtype: "F32", shape: [16, 16], data_offsets }];
    }),
  );
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const weights = Buffer.alloc(tensors.length * bytes, seed);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), "{}");
  writeFileSync(join(folder, "model.safetensors"), Buffer.concat([length, text, weights]));
}

/** The same where the hub's library keeps what it has downloaded. Gives the folder. */
export function keepInHubCache(cache: string, id: string, seed = 0): string {
  const kept = join(cache, `models--${id.replace("/", "--")}`);
  const folder = join(kept, "snapshots", "0123abc");
  writeBase(folder, seed);
  mkdirSync(join(kept, "refs"), { recursive: true });
  writeFileSync(join(kept, "refs", "main"), "0123abc");
  return folder;
}
