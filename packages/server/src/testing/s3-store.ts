import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A store that speaks as much S3 as adapters need, and checks each signature by its own reading of Amazon's description. */
export interface S3Store {
  url: string;
  /** `AWS_…` for whoever may use it. */
  env: Record<string, string>;
  /** By bucket and key. */
  objects: Map<string, Buffer>;
  /** `GET adapters/…`, in their order. */
  calls: string[];
  /** What becomes of requests from now on. */
  fault: Fault | null;
  close(): Promise<void>;
}

type Fault =
  | "hangs"
  /** Takes nothing and gives nothing, with this answer. */
  | { status: number; code: string };

export const storeKeys = { id: "AKIAOFTESTS", secret: "of/the+tests" };

export async function startS3Store(bucket = "weights"): Promise<S3Store> {
  const store: S3Store = {
    ...{ url: "", objects: new Map(), calls: [], fault: null },
    env: {
      AWS_ACCESS_KEY_ID: storeKeys.id,
      AWS_SECRET_ACCESS_KEY: storeKeys.secret,
      AWS_REGION: "eu-north-1",
    },
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  const server = createServer((request, response) => {
    answer(store, bucket, request, response).catch(() => response.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  store.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return store;
}

async function answer(
  store: S3Store,
  bucket: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { method = "", headers } = request;
  const url = new URL(request.url ?? "/", `http://${headers.host}`);
  const refuse = (status: number, code: string): void => {
    const body =
      method === "HEAD" ? "" : `<?xml version="1.0"?><Error><Code>${code}</Code></Error>`;
    response.writeHead(status, { "content-type": "application/xml" }).end(body);
  };
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  const key = decodeURIComponent(url.pathname).slice(1);
  store.calls.push(`${method} ${key.slice(bucket.length + 1)}`);
  if (store.fault === "hangs") return;
  if (store.fault) return refuse(store.fault.status, store.fault.code);
  if (!key.startsWith(`${bucket}/`)) return refuse(404, "NoSuchBucket");
  const wrong = signatureFault(method, url, headers, Date.now());
  if (wrong !== null) return refuse(403, wrong);
  const said = headers["x-amz-content-sha256"];
  if (method === "PUT") {
    if (said !== hex(body)) return refuse(400, "XAmzContentSHA256Mismatch");
    store.objects.set(key, body);
    return void response.writeHead(200).end();
  }
  if (method === "DELETE") {
    store.objects.delete(key);
    return void response.writeHead(204).end();
  }
  const found = store.objects.get(key);
  if (!found) return refuse(404, "NoSuchKey");
  response.writeHead(200, { "content-length": found.length });
  response.end(method === "HEAD" ? undefined : found);
}

function signatureFault(
  method: string,
  url: URL,
  headers: IncomingMessage["headers"],
  now: number,
): string | null {
  const query = url.searchParams;
  const isQuery = query.has("X-Amz-Signature");
  const given = isQuery
    ? {
        credential: query.get("X-Amz-Credential") ?? "",
        names: query.get("X-Amz-SignedHeaders") ?? "",
        signature: query.get("X-Amz-Signature") ?? "",
        date: query.get("X-Amz-Date") ?? "",
        seconds: Number(query.get("X-Amz-Expires")),
        payload: "UNSIGNED-PAYLOAD",
      }
    : {
        ...fromHeader(headers.authorization ?? ""),
        date: String(headers["x-amz-date"]),
        seconds: 900,
        payload: String(headers["x-amz-content-sha256"]),
      };
  const at = Date.parse(
    given.date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"),
  );
  if (!(Math.abs(now - at) < given.seconds * 1000)) return "RequestTimeTooSkewed";
  const [id, day, region] = given.credential.split("/");
  if (id !== storeKeys.id) return "InvalidAccessKeyId";
  query.delete("X-Amz-Signature");
  const expected = signatureOf({
    ...{ method, path: url.pathname, query: [...query], payload: given.payload },
    headers: given.names.split(";").map((name) => [name, String(headers[name])]),
    ...{ date: given.date, day: day ?? "", region: region ?? "", secret: storeKeys.secret },
  });
  return expected === given.signature ? null : "SignatureDoesNotMatch";
}

function fromHeader(text: string) {
  const part = (name: string): string => new RegExp(`${name}=([^, ]+)`).exec(text)?.[1] ?? "";
  return {
    credential: part("Credential"),
    names: part("SignedHeaders"),
    signature: part("Signature"),
  };
}

/** Signature version 4, from its description alone; what the server signs by is another program. */
export function signatureOf(asked: {
  method: string;
  /** As it is sent. */
  path: string;
  query: readonly (readonly [string, string])[];
  headers: readonly (readonly [string, string])[];
  payload: string;
  date: string;
  day: string;
  region: string;
  secret: string;
}): string {
  const encoded = (text: string): string =>
    encodeURIComponent(text).replace(
      /[!'()*]/g,
      (one) => `%${one.codePointAt(0)!.toString(16).toUpperCase()}`,
    );
  const canonical = [
    asked.method,
    asked.path,
    asked.query
      .map(([name, value]) => `${encoded(name)}=${encoded(value)}`)
      .toSorted()
      .join("&"),
    ...asked.headers.map(([name, value]) => `${name}:${value.trim()}`),
    "",
    asked.headers.map(([name]) => name).join(";"),
    asked.payload,
  ].join("\n");
  const scope = `${asked.day}/${asked.region}/s3/aws4_request`;
  const text = ["AWS4-HMAC-SHA256", asked.date, scope, hex(canonical)].join("\n");
  const key = [asked.day, asked.region, "s3", "aws4_request"].reduce<Buffer>(
    (secret, part) => createHmac("sha256", secret).update(part).digest(),
    Buffer.from(`AWS4${asked.secret}`),
  );
  return createHmac("sha256", key).update(text).digest("hex");
}

function hex(content: string | Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}
