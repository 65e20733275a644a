import { describe, expect, it } from "vitest";
import { bucketOf, bucketPlace, requireStore, storeRule } from "./bucket-place.ts";

const env = { AWS_ACCESS_KEY_ID: "AKIA", AWS_SECRET_ACCESS_KEY: "secret", AWS_REGION: "eu-west-1" };

it.each([
  ["s3://weights", undefined, "https://weights.s3.eu-west-1.amazonaws.com", ""],
  ["s3://weights/a/b/", undefined, "https://weights.s3.eu-west-1.amazonaws.com", "a/b/"],
  ["s3://my.weights/a", undefined, "https://s3.eu-west-1.amazonaws.com/my.weights", "a/"],
  ["s3://weights/a", "http://minio:9000/", "http://minio:9000/weights", "a/"],
])("%s with the endpoint %s is at %s", (bucket, endpoint, url, prefix) => {
  expect(bucketPlace({ bucket, endpoint }, env)).toMatchObject({ url, prefix });
});

it("takes the endpoint and the region of the environment, and shows no rights", () => {
  const { AWS_REGION: _, ...bare } = env;
  const place = bucketPlace(
    { bucket: "s3://weights" },
    { ...bare, AWS_ENDPOINT_URL_S3: "http://minio:9000", AWS_SESSION_TOKEN: "of the session" },
  );
  expect(place).toMatchObject({ url: "http://minio:9000/weights", region: "us-east-1" });
  expect(place.credentials.sessionToken).toBe("of the session");
  expect(place.shown).toBe("s3://weights");
});

describe("is refused, by what is wrong:", () => {
  it.each([
    ["weights", undefined, env, /s3:\/\/NAME/],
    ["s3://Weights", undefined, env, /s3:\/\/NAME/],
    ["s3://weights/a b", undefined, env, /prefix/],
    ["s3://weights/../b", undefined, env, /prefix/],
    ["s3://weights", "minio:9000", env, /URL such as/],
    ["s3://weights", "http://me:pass@minio", env, /without a password/],
    ["s3://weights", undefined, { ...env, AWS_REGION: "" }, /AWS_REGION/],
    ["s3://weights", undefined, { ...env, AWS_SECRET_ACCESS_KEY: "" }, /AWS_SECRET_ACCESS_KEY/],
  ])("%s, %s", (bucket, endpoint, given, reason) => {
    expect(() => bucketPlace({ bucket, endpoint }, given)).toThrow(reason);
  });

  it("a bucket for the embedded engine, an endpoint without a bucket", () => {
    expect(() => bucketOf({ bucket: "s3://weights" })).toThrow("--engine joined");
    expect(() => bucketOf({ bucketEndpoint: "http://minio:9000" })).toThrow("--bucket");
    expect(bucketOf({ engine: "embedded" })).toBeUndefined();
  });
});

it("no bucket is at an address of a cloud's secrets; loopback is for whoever is there too", async () => {
  const at = (endpoint: string) => bucketPlace({ bucket: "s3://weights", endpoint }, env);
  await expect(requireStore(at("http://169.254.169.254"))).rejects.toThrow("no address at which");
  await expect(requireStore(at("http://127.0.0.1:9000"))).resolves.toBeUndefined();
  await expect(storeRule(false).require("http://127.0.0.1:9000")).rejects.toThrow("the server is");
  await expect(storeRule(true).require("http://[fd00:ec2::254]")).rejects.toThrow("no address");
});
