import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silent, temporaryFolder } from "../testing/fixtures.ts";
import { type Checkpoints, createCheckpoints } from "./checkpoints.ts";

const weights = "adapter_model.safetensors";
const optimizer = "optimizer.safetensors";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoints: Checkpoints;
beforeEach(async () => {
  folder = await temporaryFolder();
  checkpoints = createCheckpoints(folder.path, "boot", silent);
  const staging = await checkpoints.stage("m", "op", 1);
  for (const name of [weights, optimizer]) await writeFile(join(staging, name), name);
  const manifest = {
    model: "m",
    step: 1,
    parent: 0,
    operationId: "op",
    base: "base",
    lora: { r: 1, alpha: 1 },
    seed: 0,
    cursor: null,
    metrics: {},
  };
  await checkpoints.commit(staging, manifest, [weights, optimizer]);
});
afterEach(() => folder.remove());

const fileOf = (name: string): string => join(checkpoints.path("m", 1), name);

/** Runs `meanwhile` after `verify` has read the manifest and before it has read the weights. */
async function verifyWhile(meanwhile: () => Promise<void>): Promise<void> {
  await rm(fileOf(weights));
  execFileSync("mkfifo", [fileOf(weights)]);
  const verified = checkpoints.verify("m", 1);
  // Looked at below; until then it may fail while nobody waits for it.
  verified.catch(() => undefined);
  // Opens when the other end does.
  const pipe = await open(fileOf(weights), "w");
  try {
    await meanwhile();
    await rm(fileOf(weights));
    await writeFile(fileOf(weights), weights);
    await pipe.writeFile(weights);
  } finally {
    await pipe.close();
  }
  await verified;
}

test("a policy whose optimizer is dropped while it is looked at is whole", async () => {
  await verifyWhile(() => checkpoints.dropOptimizer("m", 1));
  expect(Object.keys((await checkpoints.readManifest("m", 1))!.files)).toEqual([weights]);
});

test("what its manifest still names and is gone is damage, also where the manifest changed", async () => {
  await expect(verifyWhile(() => rm(fileOf(optimizer)))).rejects.toThrow(`${optimizer} is missing`);
  await checkpoints.dropOptimizer("m", 1);
  await checkpoints.verify("m", 1);
  await writeFile(fileOf(weights), "other");
  await expect(checkpoints.verify("m", 1)).rejects.toMatchObject({ code: "bad_adapter" });
});

test("a policy that is removed while it is looked at is not there", async () => {
  const removed = verifyWhile(async () => {
    await checkpoints.dropOptimizer("m", 1);
    await rm(fileOf("manifest.json"));
  });
  await expect(removed).rejects.toThrow("its manifest is missing");
});

test.each<[string, (file: string) => Promise<void>, string]>([
  ["a flipped bit", flipBit, `${weights} is not what was written`],
  ["its end cut off", (file) => truncate(file, 5), `${weights} is not what was written`],
  ["no weights", (file) => rm(file), `${weights} is missing`],
])("an adapter with %s is no engine's to load", async (_, damage, why) => {
  expect(await checkpoints.adapter("m", 1)).toMatchObject({
    ...{ policy: "m@1", path: checkpoints.path("m", 1), bytes: weights.length, rank: 1 },
    sha256: createHash("sha256").update(weights).digest("hex"),
  });
  await damage(fileOf(weights));
  await expect(checkpoints.adapter("m", 1)).rejects.toMatchObject({
    code: "bad_adapter",
    message: expect.stringContaining(why),
  });
  // What only training needs is not looked at.
  await writeFile(fileOf(weights), weights);
  await flipBit(fileOf(optimizer));
  expect(await checkpoints.adapter("m", 1)).toMatchObject({ rank: 1 });
});

async function flipBit(file: string): Promise<void> {
  const bytes = await readFile(file);
  bytes[3]! ^= 1;
  await writeFile(file, bytes);
}
