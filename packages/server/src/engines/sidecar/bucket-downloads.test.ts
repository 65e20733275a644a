import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { makeAdapter } from "../../testing/joinable-server.ts";
import { bucketDownloads } from "./bucket-downloads.ts";

let folder: string;
let bucket: Server;
let asked: number;
/** What the bucket does with a request. */
let then: "sends" | "refuses" | "stalls" | "trickles" | "redirects";
let one: ReturnType<typeof makeAdapter>;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-bucket-downloads-"));
  one = makeAdapter(folder, "m@1");
  asked = 0;
  bucket = createServer((_, response) => {
    asked++;
    const [status, headers] = {
      refuses: [403, {}],
      redirects: [307, { location: "/elsewhere" }],
      sends: [200, { "content-length": one.bytes }],
      trickles: [200, { "content-length": one.bytes }],
      stalls: [200, { "content-length": one.bytes }],
    }[then] as [number, Record<string, string>];
    response.writeHead(status, headers);
    if (status !== 200) response.end();
    else if (then === "trickles") {
      const timer = setInterval(() => response.write("x"), 20);
      response.once("close", () => clearInterval(timer));
    } else if (then === "sends") response.end(one.weights);
    else response.write(one.weights.subarray(0, 100));
  }).listen(0, "127.0.0.1");
  await once(bucket, "listening");
});
afterEach(() => {
  bucket.closeAllConnections();
  bucket.close();
  rmSync(folder, { recursive: true, force: true });
});

const here = () => `http://127.0.0.1:${(bucket.address() as AddressInfo).port}/one`;
/** Downloads of a sidecar whose server says this URL. */
const opened = (url: () => string | null, server = "http://127.0.0.1:7777") =>
  bucketDownloads({
    link: { bucketURL: async () => url() },
    ...{ server, log: silent, signal: new AbortController().signal },
    limits: { answerMs: 5_000, stallMs: 700, wholeMs: 1_500, restMs: 1_000 },
  });
const wanted = () => ({ policy: "m@1", sha256: one.sha256, bytes: one.bytes, rank: 8, config: "" });
const file = () => join(folder, "weights");

it.each([
  ["refuses", "refused"],
  ["redirects", "refused"],
  ["stalls", "unreachable"],
  ["trickles", "unreachable"],
] as const)("a bucket that %s is left alone for a while", async (what, why) => {
  const download = opened(here);
  then = what;
  expect(await download(wanted(), file())).toBe(why);
  expect(existsSync(file())).toBe(false);
  expect(await download(wanted(), file())).toBe(why);
  expect(asked).toBe(1);
  then = "sends";
  await expect.poll(() => download(wanted(), file())).toBe(null);
  expect(readFileSync(file())).toEqual(Buffer.from(one.weights));
});

it.each([
  ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:7777", "refused"],
  [here, "http://trainer.example:7777", "refused"],
  ["http://127.0.0.1:1/one", "http://127.0.0.1:7777", "unreachable"],
  [null, "http://127.0.0.1:7777", "missing"],
] as const)("%s, said by a server at %s, is not asked", async (url, server, why) => {
  then = "sends";
  const download = opened(() => (typeof url === "function" ? url() : url), server);
  expect(await download(wanted(), file())).toBe(why);
  expect(asked).toBe(0);
});
