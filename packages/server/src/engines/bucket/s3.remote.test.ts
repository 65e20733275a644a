import { createHash, randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { bucketPlace } from "./bucket-place.ts";
import { createS3, storeTrouble } from "./s3.ts";

// Against a store that somebody runs: HONE_TEST_BUCKET=s3://NAME/PREFIX, with AWS_… and AWS_ENDPOINT_URL_S3 (CONTRIBUTING.md).
const bucket = process.env["HONE_TEST_BUCKET"];
const soon = () => AbortSignal.timeout(20_000);

describe.skipIf(!bucket)("a store that speaks S3", () => {
  const open = (env: Record<string, string> = {}) =>
    createS3(bucketPlace({ bucket: bucket ?? "" }, { ...process.env, ...env }));
  const content = Buffer.alloc(5_000_000, randomUUID());
  const sha256 = createHash("sha256").update(content).digest("hex");
  const name = `adapters/${sha256}.safetensors`;
  const body = { content, bytes: content.length, sha256 };

  it("takes an object, lets it be read by a signed URL, and removes it", async () => {
    const s3 = open();
    expect(await s3.size(name, soon())).toBe(null);
    await s3.put(name, body, soon());
    expect(await s3.size(name, soon())).toBe(content.length);
    const url = await s3.readableURL(name, 60);
    const read = Buffer.from(await (await fetch(url)).arrayBuffer());
    expect(read.equals(content)).toBe(true);
    await s3.remove(name, soon());
    expect(await s3.size(name, soon())).toBe(null);
    expect((await fetch(url)).status).toBe(404);
    await s3.close();
  });

  it("refuses other credentials, and the refusal says what to do", async () => {
    const s3 = open({ AWS_SECRET_ACCESS_KEY: "another" });
    const refused: unknown = await s3.put(name, body, soon()).catch((error: unknown) => error);
    expect(storeTrouble(refused)).toMatch(/AWS_SECRET_ACCESS_KEY|credentials need/);
    const url = await s3.readableURL(name, 60);
    expect((await fetch(url)).status).toBe(403);
    await s3.close();
  });
});
