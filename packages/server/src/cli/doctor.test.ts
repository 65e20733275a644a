import { mkdtempSync, rmSync } from "node:fs";
import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startServer, type RunningServer } from "../server.ts";
import { runHere, startCli } from "../testing/run-cli.ts";
import { startWorkerChild, testBase, workerPython } from "../testing/running-engine.ts";
import type { Finding } from "./doctor/checks.ts";

const parent = mkdtempSync(join(tmpdir(), "hone-doctor-"));
const closers: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closers.toReversed()) await close();
  rmSync(parent, { recursive: true, force: true, maxRetries: 5 });
});

async function serve(name: string, engine: { engineURL?: string; engineKey?: string } = {}) {
  const dataDir = join(parent, name);
  const server = await startServer({ base: testBase, port: 0, dataDir, ...engine });
  closers.push(() => server.close());
  return { server, dataDir };
}

async function examined(dataDir: string) {
  const { code, out, error } = await runHere(["doctor", "--json", "--data-dir", dataDir]);
  const { findings = [] } = (out ? JSON.parse(out) : {}) as { findings?: Finding[] };
  const failed = findings.filter(({ verdict }) => verdict === "failed");
  return { code, error, findings, failed: failed.map(({ check }) => check) };
}

/** Models that are left on the server. */
async function modelsOf({ url, key }: RunningServer): Promise<unknown[]> {
  const headers = { authorization: `Bearer ${key}` };
  const { data } = (await (await fetch(`${url}/v1/states`, { headers })).json()) as {
    data: unknown[];
  };
  return data;
}

const allChecks = [
  ...["parity, greedy", "parity, temperature 0.5", "parity, temperature 1"],
  ...[
    "parity, temperature 1.5",
    "greedy takes the likeliest",
    "parity, top_p 0.9",
    "swap A, B, A",
    "A and B interleaved",
  ],
  ...["prompt under A, then B", "disconnect, abort", "publish"],
];

describe.skipIf(!workerPython())("doctor", () => {
  it("finds nothing wrong with the embedded engine, and leaves nothing behind", async () => {
    const { server, dataDir } = await serve("embedded");
    const { code, out, error } = await runHere(["doctor", "--data-dir", dataDir]);
    const [ofOptions = "", ofChecks = ""] = out.split("\n\n");
    expect(ofOptions).toMatch(/^OPTION +IN FORCE +FROM +VERDICT +NOTE\n--base +\S+ +given +ok\n/);
    const only = await runHere(["doctor", "--options", "--data-dir", dataDir]);
    expect(only).toMatchObject({ code: 0, error: "" });
    expect(only.out.match(/^\S+/gm)).toEqual(ofOptions.match(/^\S+/gm));
    const [head, ...lines] = ofChecks.trim().split("\n");
    expect(head).toMatch(/^CHECK +MEASURED +AT MOST +UNIT +VERDICT +NOTE$/);
    expect(lines.map((line) => line.split("  ")[0])).toEqual(allChecks);
    for (const line of lines) expect(line).toMatch(/ (logprob|s +) +ok/);
    expect(code).toBe(0);
    // It says how far it is, and that its policies could be told apart.
    expect(error).toMatch(/doctor: training policy A, step 1\n/);
    expect(Number(/differ by ([\d.]+)/.exec(out)?.[1])).toBeGreaterThan(0.1);
    expect(await modelsOf(server)).toEqual([]);

    // Stopped on its way, it leaves nothing either.
    const { child, ended } = startCli(["doctor", "--data-dir", dataDir]);
    child.stderr?.on("data", (text) => {
      if (String(text).includes("training policy")) child.kill("SIGINT");
    });
    expect(await ended).toMatchObject({
      code: 1,
      out: "",
      error: expect.stringContaining("hone: "),
    });
    expect(await modelsOf(server)).toEqual([]);
  });

  describe("beside an engine with a fault", { shuffle: false }, () => {
    let fault: keyof typeof faults | null = null;
    let at: Awaited<ReturnType<typeof serve>>;
    beforeAll(async () => {
      const engine = await startWorkerChild(["--served-name", "base"]);
      closers.push(() => engine.stop());
      const server = createServer((given, answer) => {
        void pass(given, answer, engine.baseURL, () => fault).catch(() => answer.destroy());
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      closers.push(() => new Promise((resolve) => server.close(resolve)));
      const proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      at = await serve("proxied", { engineURL: proxy, engineKey: engine.key });
    }, 120_000);

    it.each([
      ["logprobs", /^parity|^greedy|^swap|then B/, 8],
      ["stale", /^swap|then B/, 2],
      ["noAbort", /^disconnect/, 1],
    ] as const)("notices %s", async (planted, checks, count) => {
      fault = planted;
      const { code, error, failed } = await examined(at.dataDir);
      expect({ code, error }).toMatchObject({ code: 1 });
      for (const check of failed) expect(check).toMatch(checks);
      expect(failed, error).toHaveLength(count);
      expect(error).toContain(`${count} of 11 checks failed`);
      expect(await modelsOf(at.server)).toEqual([]);
    });
  });
});

/**
 * What goes wrong between the server and a good engine. Only with answers of many tokens: what goes wrong with a single
 * one, the server notices when it probes a new policy.
 */
const faults = {
  /** Logprobs of another temperature. */
  logprobs: {
    answer: (text: string) =>
      text.replace(/"token_logprobs":\s*\[([^\]]*)\]/g, (_, list: string) => {
        const values = list.split(",").map((one) => Number(one) * 1.1);
        return `"token_logprobs":[${values.join(",")}]`;
      }),
  },
  /** Policies after the second are answered by the second. */
  stale: {
    ask: (text: string) =>
      text.replace(/"model":"(doctor-\w+)@(\d+)"/, (all: string, name: string, step: string) =>
        Number(step) > 2 ? `"model":"${name}@2"` : all,
      ),
  },
  /** Goes on when nobody reads any more. */
  noAbort: {},
} satisfies Record<string, { ask?: (text: string) => string; answer?: (text: string) => string }>;

async function pass(
  given: IncomingMessage,
  answer: ServerResponse,
  engine: string,
  faultNow: () => keyof typeof faults | null,
): Promise<void> {
  const name = faultNow();
  const chunks: Buffer[] = [];
  for await (const chunk of given) chunks.push(chunk as Buffer);
  const asked = Buffer.concat(chunks).toString();
  const isLong = asked.includes('"max_tokens":24,');
  const planted: { ask?: (text: string) => string; answer?: (text: string) => string } =
    name && isLong ? faults[name] : {};
  const body = planted.ask?.(asked) ?? asked;
  const model = /"model":"([^"]+)"/.exec(asked)?.[1];
  const { "content-length": _, host: __, ...headers } = given.headers;
  const onward = request(engine + given.url, {
    method: given.method,
    headers: { ...headers, ...(body && { "content-length": Buffer.byteLength(body) }) },
  });
  if (name !== "noAbort") answer.once("close", () => onward.destroy());
  onward.end(body);
  const reply = await new Promise<IncomingMessage>((resolve, reject) => {
    onward.once("response", resolve).once("error", reject);
  });
  const { "content-length": ___, ...shown } = reply.headers;
  answer.writeHead(reply.statusCode ?? 502, shown);
  if (planted.answer || planted.ask) {
    let text = "";
    for await (const chunk of reply) text += String(chunk);
    // The answer says the name that was asked for.
    answer.end((planted.answer?.(text) ?? text).replace(/"model":"[^"]+"/, `"model":"${model}"`));
    return;
  }
  for await (const chunk of reply) answer.write(chunk);
  answer.end();
}
