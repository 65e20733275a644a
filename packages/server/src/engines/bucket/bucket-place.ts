import { HoneError } from "@hone/core";
import { addressRule } from "../addresses.ts";

/** Where adapters are mirrored, and by whose right. It is kept in memory alone: nothing here is logged or stored whole. */
export interface BucketPlace {
  /** `s3://NAME/PREFIX`, as it may be shown. */
  shown: string;
  /** The URL of the bucket itself, without a slash at its end. */
  url: string;
  /** Before each object's name; "" or ending in a slash. */
  prefix: string;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
}

/** Where the bucket of these options is, if one is given, or why they do not go together. */
export function bucketOf(options: {
  bucket?: string | undefined;
  bucketEndpoint?: string | undefined;
  engine?: "embedded" | "vllm" | "joined" | undefined;
  engineURL?: string | readonly string[] | undefined;
}): BucketPlace | undefined {
  const { bucket, bucketEndpoint: endpoint, engine = "embedded", engineURL = [] } = options;
  if (bucket === undefined) {
    if (endpoint === undefined) return undefined;
    return refuse("--bucket-endpoint is of --bucket. Add that, or leave it out.");
  }
  if (engine === "embedded" && [engineURL].flat().length === 0) {
    refuse(
      "--bucket is for engines that join, and this server generates by its embedded engine. Add --engine joined or --engine vllm, or leave it out.",
    );
  }
  return bucketPlace({ bucket, endpoint });
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Reads `--bucket` and `--bucket-endpoint`, and the rights to it from the environment. Throws what is wrong with them. */
export function bucketPlace(
  given: { bucket: string; endpoint?: string | undefined },
  env: Environment = process.env,
): BucketPlace {
  const found = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(given.bucket);
  const name = found?.[1];
  const path = (found?.[2] ?? "").replace(/\/+$/, "");
  if (
    name === undefined ||
    !/^$|^[\w.-]+(\/[\w.-]+)*$/.test(path) ||
    /(^|\/)\.\.?(\/|$)/.test(path)
  ) {
    refuse(
      "--bucket is s3://NAME or s3://NAME/PREFIX, where the prefix has letters, digits, and . _ - / only.",
    );
  }
  const endpoint = endpointOf(
    given.endpoint ?? (env["AWS_ENDPOINT_URL_S3"] || env["AWS_ENDPOINT_URL"]),
  );
  // Stores that are not Amazon's take any region, most of them this one.
  const region = env["AWS_REGION"] || env["AWS_DEFAULT_REGION"] || (endpoint ? "us-east-1" : "");
  if (region === "") {
    refuse("The bucket's region is not known. Set AWS_REGION, such as eu-central-1.");
  }
  const [accessKeyId, secretAccessKey] = [env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]];
  if (!accessKeyId || !secretAccessKey) {
    refuse(
      "--bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment (and AWS_SESSION_TOKEN with temporary ones). Of a profile, `aws configure export-credentials --format env` prints them.",
    );
  }
  const sessionToken = env["AWS_SESSION_TOKEN"];
  return {
    shown: `s3://${[name, path].filter(Boolean).join("/")}`,
    url: urlOf(name, region, endpoint),
    prefix: path === "" ? "" : `${path}/`,
    region,
    credentials: {
      accessKeyId,
      secretAccessKey,
      ...(sessionToken && { sessionToken }),
    },
  };
}

/** Amazon's buckets have host names of their own. A name with dots in it fits no certificate, so it goes into the path. */
function urlOf(name: string, region: string, endpoint: string | undefined): string {
  if (endpoint !== undefined) return `${endpoint}/${name}`;
  const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  return name.includes(".")
    ? `https://s3.${region}.${domain}/${name}`
    : `https://${name}.s3.${region}.${domain}`;
}

function endpointOf(text: string | undefined): string | undefined {
  if (text === undefined || text === "") return undefined;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (
    !url ||
    !/^https?:$/.test(url.protocol) ||
    url.search ||
    url.hash ||
    url.username ||
    url.password
  ) {
    return refuse(
      "The bucket's endpoint is a URL such as https://minio.example:9000, without a password or a query.",
    );
  }
  return url.href.replace(/\/+$/, "");
}

/** Throws where the bucket's endpoint is an address that no store can be at. Loopback is the operator's own choice. */
export function requireStore({ url }: BucketPlace): Promise<void> {
  return storeRule(true).require(url);
}

/** @param isNear whether whoever names the bucket is on this machine */
export function storeRule(isNear: boolean) {
  return addressRule(isNear ? "127.0.0.1" : undefined, {
    whose: "a bucket",
    near: "is this machine itself, and the server is elsewhere. Give the server a --bucket-endpoint that engines reach too.",
    unknown: "Look at --bucket-endpoint.",
  });
}

function refuse(message: string): never {
  throw new HoneError(message, { code: "invalid_config", param: "bucket" });
}
