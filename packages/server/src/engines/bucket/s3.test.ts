import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { signatureOf, startS3Store, type S3Store } from "../../testing/s3-store.ts";
import { bucketPlace } from "./bucket-place.ts";
import { createS3, storeTrouble, type S3 } from "./s3.ts";

// The examples that Amazon publishes for signature version 4 and S3.
const published = {
  secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  ...{ day: "20130524", date: "20130524T000000Z", region: "us-east-1" },
  bySignedURL: "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
  byHeader: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
};
const empty = createHash("sha256").digest("hex");

describe("the signatures that Amazon publishes", () => {
  it("are those by which the store of these tests judges", () => {
    const signature = signatureOf({
      ...{ method: "GET", path: "/test.txt", query: [], payload: empty, ...published },
      headers: [
        ["host", "examplebucket.s3.amazonaws.com"],
        ["range", "bytes=0-9"],
        ["x-amz-content-sha256", empty],
        ["x-amz-date", published.date],
      ],
    });
    expect(signature).toBe(published.byHeader);
  });

  it("are those of our URLs", async () => {
    vi.useFakeTimers({ now: Date.parse("2013-05-24T00:00:00Z"), toFake: ["Date"] });
    const s3 = createS3({
      ...{ shown: "", url: "https://examplebucket.s3.amazonaws.com", prefix: "" },
      region: published.region,
      credentials: { accessKeyId: "AKIAIOSFODNN7EXAMPLE", secretAccessKey: published.secret },
    });
    const url = new URL(await s3.readableURL("test.txt", 86_400));
    vi.useRealTimers();
    expect(url.searchParams.get("X-Amz-Signature")).toBe(published.bySignedURL);
    await s3.close();
  });
});

describe("a store", () => {
  let store: S3Store;
  let s3: S3;
  const open = (more: Record<string, string> = {}, bucket = "s3://weights/team/a"): S3 =>
    createS3(bucketPlace({ bucket, endpoint: store.url }, { ...store.env, ...more }));
  beforeEach(async () => {
    store = await startS3Store();
    s3 = open();
  });
  afterEach(async () => {
    await s3.close();
    await store.close();
  });
  const soon = () => AbortSignal.timeout(5_000);
  const bodyOf = (text: string) => {
    const content = Buffer.from(text);
    const sha256 = createHash("sha256").update(content).digest("hex");
    return { content, bytes: content.length, sha256 };
  };

  it("keeps what is put there, below the prefix, and gives it to whoever has a URL", async () => {
    expect(await s3.size("adapters/one", soon())).toBe(null);
    await s3.put("adapters/one", bodyOf("of one"), soon());
    expect([...store.objects.keys()]).toEqual(["weights/team/a/adapters/one"]);
    expect(await s3.size("adapters/one", soon())).toBe(6);
    const url = await s3.readableURL("adapters/one", 60);
    expect(await (await fetch(url)).text()).toBe("of one");
    // The URL is for this object and for reading alone.
    expect((await fetch(url.replace("/one", "/two"))).status).toBe(403);
    expect((await fetch(url, { method: "DELETE" })).status).toBe(403);
    await s3.remove("adapters/one", soon());
    expect((await fetch(url)).status).toBe(404);
  });

  it("takes no other bytes than those of the digest", async () => {
    const body = { ...bodyOf("of one"), content: Buffer.from("of two") };
    const error: unknown = await s3.put("adapters/one", body, soon()).catch((one: unknown) => one);
    expect(error).toMatchObject({ status: 400, code: "XAmzContentSHA256Mismatch" });
    expect(store.objects.size).toBe(0);
  });

  it.each([
    [{ AWS_SECRET_ACCESS_KEY: "another" }, "s3://weights", /AWS_SECRET_ACCESS_KEY/],
    [{ AWS_ACCESS_KEY_ID: "another" }, "s3://weights", /AWS_ACCESS_KEY_ID/],
    [{}, "s3://other-weights", /make it, or correct --bucket/],
  ])("says what to do where it refuses %j %s", async (more, bucket, advice) => {
    const other = open(more, bucket);
    const error: unknown = await other.put("one", bodyOf("1"), soon()).catch((one: unknown) => one);
    expect(storeTrouble(error)).toMatch(advice);
    expect(storeTrouble(error)).not.toContain(store.env["AWS_SECRET_ACCESS_KEY"]);
    await other.close();
  });

  it("that nobody reaches, or that does not answer, is said to be so", async () => {
    store.fault = "hangs";
    const error: unknown = await s3
      .size("one", AbortSignal.timeout(100))
      .catch((one: unknown) => one);
    expect(storeTrouble(error)).toMatch(/did not answer in time/);
    await store.close();
    const gone: unknown = await s3.size("one", soon()).catch((one: unknown) => one);
    expect(storeTrouble(gone)).toMatch(/cannot be reached \(ECONNREFUSED\)/);
    store = await startS3Store();
  });
});
