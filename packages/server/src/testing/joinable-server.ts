import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import { join } from "node:path";
import { createAdaptorServer } from "@hono/node-server";
import type { EngineInfo, EngineToken } from "@hone/core";
import { pino, type Logger } from "pino";
import { createApp } from "../app.ts";
import { openAdapterBucket, type AdapterBucket } from "../engines/bucket/adapter-bucket.ts";
import type { BucketPlace } from "../engines/bucket/bucket-place.ts";
import { createJoinedEngines } from "../engines/joined/joined-engines.ts";
import { engineRealm, joinedEngineRoutes, operatorEngineRoutes } from "../engines/joined/routes.ts";
import { createEnginePool, type EnginePool } from "../engines/pool.ts";
import { listen } from "../http/listen.ts";
import type { LiveAdapter } from "../ports/live-set.ts";

export const serverKey = "hone_the-key-of-this-server";

/** A server's engines and their routes, without what needs Python: policies are what the test loads into the pool. */
export interface JoinableServer {
  url: string;
  pool: EnginePool;
  bucket: AdapterBucket | null;
  /** A request with the server's key, or another. */
  call(
    method: string,
    path: string,
    body?: unknown,
    key?: string,
  ): Promise<{ status: number; json: unknown }>;
  token(expiresIn?: number): Promise<string>;
  engines(): Promise<EngineInfo[]>;
  close(): Promise<void>;
}

export async function startJoinableServer(options: {
  dataDir: string;
  port?: number;
  /** What `restore` makes live: after a start anew, what was live before. */
  live?: readonly LiveAdapter[];
  deadlineMs?: number;
  base?: string;
  /** Of the base's files. @default unknown */
  fingerprint?: string | null;
  probeTolerance?: number;
  bucket?: BucketPlace;
  /** How long the bucket keeps what is not live. @unit ms */
  keptMs?: number;
  log?: Logger;
}): Promise<JoinableServer> {
  const { dataDir, base = "base" } = options;
  const log = options.log ?? pino({ level: process.env["HONE_TEST_LOG"] ?? "silent" });
  const pool = createEnginePool({
    replicas: [],
    async restore() {
      for (const adapter of options.live ?? []) {
        const isThere = pool.liveSet
          .current()
          .adapters.some((one) => one.policy === adapter.policy);
        if (!isThere) await pool.load(adapter);
      }
    },
    base: () => ({ name: base, dtype: "float32" }),
    deadlineMs: options.deadlineMs,
    tolerance: () => options.probeTolerance,
    log,
  });
  const place = options.bucket;
  const bucket = place
    ? openAdapterBucket({
        ...{ place, dataDir, liveSet: () => pool.liveSet, log, keptMs: options.keptMs },
        publishDeadlineMs: options.deadlineMs,
      })
    : null;
  const joined = createJoinedEngines({
    bucket,
    ...{ dataDir, pool: () => pool, closed: null, taken: ["worker"], log },
    probeTolerance: options.probeTolerance,
    publishDeadlineMs: options.deadlineMs,
    base: () => ({
      ...{ name: base, dtype: "float32", quantize: null },
      fingerprint: options.fingerprint ?? null,
      ...{ maxModelLen: 512, rank: 8, slots: 6 },
    }),
  });
  const app = createApp({
    keys: [{ id: "owner", key: serverKey }],
    realms: [engineRealm(joined)],
    log,
    admit: () => undefined,
    health: () => ({ status: "ok", base, components: joined.status() }),
    metrics: async () => "",
    routes: [operatorEngineRoutes(joined), joinedEngineRoutes(joined)],
  });
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  const port = await listen(server, options.port ?? 0, "127.0.0.1");
  await bucket?.check();
  joined.start();
  const url = `http://127.0.0.1:${port}`;

  const call: JoinableServer["call"] = async (method, path, body, key = serverKey) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body !== undefined && { "content-type": "application/json" }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, json: text ? JSON.parse(text) : null };
  };
  return {
    ...{ url, pool, bucket, call },
    async token(expiresIn) {
      const made = await call("POST", "/v1/engines/tokens", { expiresIn });
      return (made.json as EngineToken).token;
    },
    async engines() {
      const list = await call("GET", "/v1/engines");
      return (list.json as { data: EngineInfo[] }).data;
    },
    async close() {
      joined.refuse();
      await joined.stop();
      await bucket?.close();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

/** What is wrong with an adapter that is made for a test. */
export interface AdapterFaults {
  rank?: number;
  /** The digest that it is said to have. */
  sha256?: string;
  nan?: boolean;
  cut?: boolean;
  flipped?: boolean;
}

/** LoRA files of one layer, with weights that differ by policy. */
export function makeAdapter(
  folder: string,
  policy: string,
  faults: AdapterFaults = {},
): LiveAdapter & { weights: Uint8Array } {
  const rank = faults.rank ?? 8;
  const values = new Float32Array(2 * rank * 16).map((_, at) => Math.sin(at + policy.length * 7));
  values.set([...policy].map((letter) => letter.codePointAt(0)! / 1000));
  if (faults.nan) values[5] = NaN;
  const half = values.byteLength / 2;
  const name = "base_model.model.layers.0.q_proj";
  const header = Buffer.from(
    JSON.stringify({
      [`${name}.lora_A.weight`]: { dtype: "F32", shape: [rank, 16], data_offsets: [0, half] },
      [`${name}.lora_B.weight`]: {
        ...{ dtype: "F32", shape: [16, rank], data_offsets: [half, 2 * half] },
      },
    }).padEnd(256),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  let weights: Buffer = Buffer.concat([length, header, Buffer.from(values.buffer)]);
  const sha256 = faults.sha256 ?? createHash("sha256").update(weights).digest("hex");
  const bytes = weights.length;
  if (faults.cut) weights = weights.subarray(0, bytes - 64);
  if (faults.flipped) weights[bytes - 3]! ^= 1;
  mkdirSync(folder, { recursive: true });
  const path = mkdtempSync(join(folder, "policy-"));
  writeFileSync(join(path, "adapter_model.safetensors"), weights);
  const config = { peft_type: "LORA", r: rank, lora_alpha: 16, base_model_name_or_path: "base" };
  writeFileSync(join(path, "adapter_config.json"), JSON.stringify(config));
  return { policy, path, sha256, bytes, rank: 8, weights };
}
