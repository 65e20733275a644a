import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { modelInfoSchema, OperationInfo, PolicyDetail, RolloutSummary } from "@hone/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { z } from "zod";
import { announcedServer, type AnnouncedServer } from "../testing/announced-server.ts";
import { runHere } from "../testing/run-cli.ts";

let parent: string;
let server: AnnouncedServer | null;
beforeEach(() => {
  parent = realpathSync(mkdtempSync(join(tmpdir(), "hone-answers-")));
  server = null;
});
afterEach(async () => {
  await server?.close();
  rmSync(parent, { recursive: true, force: true });
});

test.each([["models"], ["gc"], ["keys", "rotate"]])(
  "the key of a server that was killed goes to nobody on its port: %s %s",
  async (...command) => {
    const { pid } = spawnSync(process.execPath, ["-e", ""]);
    server = await announcedServer(() => ({}), { pid });
    const { code, error } = await runHere([...command, "--data-dir", server.dataDir]);
    expect(server.requests).toEqual([]);
    if (command[0] === "keys") {
      expect({ code, error }).toEqual({ code: 0, error: "" });
      return;
    }
    expect(code).toBe(1);
    if (command[0] === "models") expect(error).toContain(`pid ${pid}, which is gone`);
    else expect(error).toContain("it has no hone.db");
  },
);

const engine = ["engine", "--join", "http://127.0.0.1:1"];
const engineByURL = [...engine, "--engine-url", "http://127.0.0.1:2"];

test.each([
  [["export", "m@1", "folder", "--base", "b"], /--base is for --merged and --classifier/],
  [["setup", "--check", "--model", "smollm2"], /'--check' cannot be used with option '--model/],
  [["setup", "--check", "--torch", "cpu"], /'--check' cannot be used with option '--torch/],
  [["serve", "--base", "b", "--engine-key", "k"], /--engine-key is of engines by --engine-url/],
  [[...engine, "--engine-key", "k"], /--engine-key is of a vLLM by --engine-url: .* Add --engine/],
  [[...engine, "--engine-max-seqs", "8"], /--engine-max-seqs is of --engine-url/],
  [
    [...engineByURL, "--device", "cuda"],
    /--device is of the vLLM that Hone starts: .* Leave it out/,
  ],
  [[...engineByURL, "--max-loras", "8"], /--max-loras and --max-model-len are of the vLLM that/],
  [[...engineByURL, "--max-model-len", "8"], /--max-loras and --max-model-len are of the vLLM/],
  [[...engineByURL, "--", "--seed", "1"], /--seed 1 would go to vLLM, which runs already/],
  [[...engine, "--max-loras", "8", "--", "--max-loras=4"], /--max-loras and -- --max-loras both/],
  [[...engine, "--", "--max-lora-r", "4"], /does not hear of --max-lora-rank\. Give it before --/],
  [["keys", "--url", "http://127.0.0.1:1"], /--url names a server, and the file of a key lies/],
])("an option that would do nothing is refused: %j", async (args, message) => {
  const { code, out, error } = await runHere(args);
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(error).toMatch(message);
});

test("export into what is no folder", async () => {
  const file = join(parent, "file");
  writeFileSync(file, "");
  const system = existsSync("/proc/self") ? ["/proc/hone-export", "/proc/hone/export"] : [];
  for (const folder of [file, join(file, "deep"), ...system]) {
    const { code, out, error } = await runHere(["export", "m@1", folder]);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(error).toMatch(/^hone: The folder \S+ cannot be made \(.*\)\. Name another one\.\n$/);
  }
});

describe("inspect", () => {
  const operation: OperationInfo = {
    id: "op_1",
    object: "operation",
    model: "m",
    type: "train",
    clientToken: "t",
    status: "succeeded",
    fromStep: 0,
    result: null,
    error: null,
    createdAt: 1,
  };
  const rollout = (n: number): RolloutSummary => ({
    id: `ro_${n}`,
    object: "rollout",
    model: "m",
    mode: "train",
    status: "finished",
    group: null,
    policy: "m@0",
    baseURL: "http://127.0.0.1/v1",
    reward: 1,
    completions: 1,
    leaseExpiresAt: null,
    createdAt: 1,
    metrics: {},
    error: null,
    trainedBy: "op_1",
    closedAt: 2,
  });

  test("shows every rollout of a step", async () => {
    const all = Array.from({ length: 230 }, (_, n) => rollout(n));
    server = await announcedServer((url, response) => {
      if (url.pathname === "/v1/operations/op_1") return operation;
      if (url.pathname === "/v1/operations/op_1/events") return response.end();
      if (url.pathname !== "/v1/models/m/rollouts") return undefined;
      const begin = all.findIndex(({ id }) => id === url.searchParams.get("after")) + 1;
      const end = begin + Number(url.searchParams.get("limit"));
      return { object: "list", data: all.slice(begin, end), has_more: end < all.length };
    });
    const args = ["inspect", "op_1", "--json", "--data-dir", server.dataDir];
    const { code, out, error } = await runHere(args);
    expect({ code, error }).toEqual({ code: 0, error: "" });
    const shown = JSON.parse(out) as { rollouts: RolloutSummary[] };
    expect(shown.rollouts.map(({ id }) => id)).toEqual(all.map(({ id }) => id));
  });
});

describe("import", () => {
  const model: z.input<typeof modelInfoSchema> = {
    ...{ name: "m", object: "hone.model", base: "one", lora: { r: 8, alpha: 16 } },
    ...{ learnt: 0, served: 0, cursor: null, maxModelLen: 512, createdAt: 1 },
  };

  test.each([
    ["engine_unavailable", "No engine answers.", "engine_unavailable"],
    ["bad_adapter", "It holds NaN.", "bad_adapter"],
    ["of_a_later_server", "Who knows.", "internal_error"],
  ])("fails with the error of the operation: %s", async (code, message, told) => {
    const error = { message, type: "server_error", code, param: null };
    const operation = {
      ...{ id: "op_1", object: "operation", model: "m", type: "import", clientToken: "t" },
      ...{ status: "failed", fromStep: 0, result: null, error, createdAt: 1 },
    };
    server = await announcedServer((url, response) => {
      if (url.pathname === "/v1/models/m/state") return model;
      if (url.pathname === "/v1/operations/op_1/events") return response.end();
      return operation;
    });
    const adapter = join(parent, "adapter");
    mkdirSync(adapter);
    writeFileSync(join(adapter, "adapter_config.json"), '{"r": 8, "lora_alpha": 16}');
    writeFileSync(join(adapter, "adapter_model.safetensors"), "weights");
    const args = ["import", adapter, "--model", "m", "--json", "--data-dir", server.dataDir];
    const ended = await runHere(args);
    expect(ended.code).toBe(1);
    const last = ended.error.trim().split("\n").at(-1) ?? "";
    expect(JSON.parse(last)).toMatchObject({ error: { code: told, message } });
  });
});

describe("export", () => {
  const content = "weights";
  const file = {
    sha256: createHash("sha256").update(content).digest("hex"),
    bytes: content.length,
  };
  const policy: PolicyDetail = {
    id: "m@1",
    object: "hone.policy",
    model: "m",
    step: 1,
    live: true,
    pinned: false,
    keptAs: [],
    removedAt: null,
    operationId: "op_1",
    checkpoint: "models/m/policies/1",
    createdAt: 1,
    base: "one",
    lora: { r: 4, alpha: 8 },
    parent: 0,
    metrics: {},
    files: { "adapter_config.json": file, "adapter_model.safetensors": file },
    evaluated: { rollouts: 0, reward: null },
  };
  const policyPath = "/v1/models/m/policies/1";

  test.each([
    [{ status: "ok", base: "two", components: {} }, 200, 'the server serves "two" now'],
    [{}, 503, "the server does not say what it serves now"],
  ])("--merged takes no base but the policy's: %j", async (health, status, message) => {
    server = await announcedServer((url, response) => {
      if (url.pathname === policyPath) return policy;
      if (url.pathname !== "/health") return undefined;
      response.statusCode = status;
      return health;
    });
    const folder = join(parent, "merged");
    const args = ["export", "m@1", folder, "--merged", "--data-dir", server.dataDir];
    const { code, error } = await runHere(args);
    expect(code).toBe(1);
    expect(error).toBe(
      `hone: Name the base with --base: m@1 was trained on "one", and ${message}.\n`,
    );
    // Nothing was fetched for it.
    expect(server.requests).toEqual([policyPath, "/health"]);
    expect(readdirSync(parent)).toEqual([]);
  });

  test("--classifier is for a policy with a head", async () => {
    server = await announcedServer((url) => (url.pathname === policyPath ? policy : undefined));
    const args = ["export", "m@1", join(parent, "c"), "--classifier", "--data-dir", server.dataDir];
    const { code, error } = await runHere(args);
    expect(code).toBe(1);
    expect(error).toContain("m@1 has no head that gives scores");
    expect(server.requests).toEqual([policyPath]);
    expect(readdirSync(parent)).toEqual([]);
  });

  test("leaves what was put into the folder meanwhile", async () => {
    const folder = join(parent, "adapter");
    mkdirSync(folder);
    let disturb = true;
    server = await announcedServer((url, response) => {
      if (url.pathname === policyPath) return policy;
      if (disturb) writeFileSync(join(folder, "notes.txt"), "mine");
      return response.end(content);
    });
    const args = ["export", "m@1", folder, "--data-dir", server.dataDir];
    const { code, error } = await runHere(args);
    expect(code).toBe(1);
    expect(error).toContain(`hone: ${folder} is no longer empty`);
    expect(readdirSync(folder)).toEqual(["notes.txt"]);
    expect(readdirSync(parent)).toEqual(["adapter"]);

    rmSync(join(folder, "notes.txt"));
    disturb = false;
    expect((await runHere(args)).code).toBe(0);
    expect(existsSync(join(folder, "adapter_model.safetensors"))).toBe(true);
  });
});
