import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { makeAdapter } from "../../testing/joinable-server.ts";
import { openAdapterCache } from "./adapter-cache.ts";
import { checkAdapter } from "./adapter-check.ts";
import { linkTo } from "./server-link.ts";

let folder: string;
let server: Server;
/** What becomes of a download after its first half. */
let then: "stalls" | "breaks" | "goes on";

const made = () => makeAdapter(folder, "m@1");
let one: ReturnType<typeof made>;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-downloads-"));
  one = made();
  server = createServer((_, response) => {
    const half = one.bytes / 2;
    response.writeHead(200, { "content-length": one.bytes });
    response.write(one.weights.subarray(0, half), () => {
      if (then === "breaks") response.destroy();
      if (then === "goes on") response.end(one.weights.subarray(half));
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

function openCache() {
  const { port } = server.address() as AddressInfo;
  const link = linkTo(`http://127.0.0.1:${port}`, "k".repeat(43), { stallMs: 1_500 });
  return openAdapterCache({
    ...{ folder: join(folder, "cache"), maxBytes: 1e9, log: silent },
    fetch: (sha256) => link.adapter(sha256, new AbortController().signal),
    check: (place, wanted) => checkAdapter(place, wanted, { maxRank: null, baseShapes: new Map() }),
  });
}

function wantedOf({ policy, sha256, bytes, rank, path }: typeof one) {
  return {
    policy,
    sha256,
    bytes,
    rank,
    config: readFileSync(join(path, "adapter_config.json"), "utf8"),
  };
}

const weightsIn = (place: string) => readFileSync(join(place, "adapter_model.safetensors"));

it("fetches an adapter anew that the disk has damaged since it was last looked at", async () => {
  then = "goes on";
  const cache = await openCache();
  const wanted = wantedOf(one);
  const place = await cache.folderOf(wanted);
  const flipped = Buffer.from(one.weights);
  flipped[flipped.length - 3]! ^= 1;
  writeFileSync(join(place, "adapter_model.safetensors"), flipped);
  // It is looked at once, and not for each policy that has it.
  await cache.folderOf(wanted);
  expect(weightsIn(place)).toEqual(flipped);
  expect(await cache.lookAgain(wanted)).toBe(place);
  expect(weightsIn(place)).toEqual(Buffer.from(one.weights));
});

it.each(["stalls", "breaks"] as const)(
  "a download that %s is no fault of the adapter, which may come the next time",
  async (what) => {
    const cache = await openCache();
    const wanted = wantedOf(one);
    then = what;
    await expect(cache.folderOf(wanted)).rejects.toMatchObject({ code: "connection_failed" });
    expect(readdirSync(join(folder, "cache"))).toEqual([]);
    then = "goes on";
    const place = await cache.folderOf(wanted);
    expect(weightsIn(place)).toEqual(Buffer.from(one.weights));
  },
);
