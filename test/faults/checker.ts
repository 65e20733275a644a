import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { openDatabase } from "./database.ts";
import { processesOf } from "./server-process.ts";

interface Manifest {
  model: string;
  step: number;
  parent: number | null;
  operationId: string;
  files: Record<string, { sha256: string; bytes: number }>;
}
interface ModelRow {
  name: string;
  learnt: number;
  served: number;
}
interface PolicyRow {
  model: string;
  step: number;
  operation_id: string;
}
interface OperationRow {
  id: string;
  model: string;
  type: string;
  status: string;
  from_step: number | null;
  op: string;
  result: string | null;
}
interface RolloutRow {
  id: string;
  status: string;
  policy_step: number | null;
  trained_by: string | null;
}

/** Events of which an operation has one at most; those of its work come again when a step is redone. */
const once = new Set(["started", "filtered", "committed", "published", "ended"]);

export interface CheckOptions {
  dataDir: string;
  /** Of the processes that must have ended. */
  mark: string;
  /** That must be free. */
  port: number;
  model: string;
  /** Where N must be. */
  step: number;
}

/** What is wrong with a data directory whose server has stopped; nothing where all is well. */
export async function check(options: CheckOptions): Promise<string[]> {
  const { dataDir, mark, port } = options;
  const faults: string[] = [];
  const left = processesOf(mark);
  if (left.length > 0) faults.push(`orphan processes: ${left.join(", ")}`);
  if (await isHeld(port)) faults.push(`port ${port} is held`);
  const database = openDatabase(dataDir);
  try {
    const all = <T>(sql: string): T[] => database.prepare(sql).all() as T[];
    const models = all<ModelRow>("SELECT * FROM models");
    const policies = all<PolicyRow>("SELECT * FROM policies ORDER BY model, step");
    const operations = all<OperationRow>("SELECT * FROM operations ORDER BY number");
    const rollouts = all<RolloutRow>("SELECT * FROM rollouts");
    const log = all<{ operation_id: string; seq: number; data: string }>(
      "SELECT * FROM operation_events ORDER BY operation_id, seq",
    );
    for (const model of models) faults.push(...checkModel(dataDir, model, policies));
    const checked = models.find(({ name }) => name === options.model);
    if (checked?.learnt !== options.step) {
      faults.push(`${options.model} is at ${checked?.learnt}, not at ${options.step}`);
    }
    for (const operation of operations) {
      const events = log.filter((row) => row.operation_id === operation.id);
      faults.push(...checkEvents(operation, events));
    }
    faults.push(...checkTraining(operations, rollouts));
    for (const { id, status, policy_step: pinned } of rollouts) {
      if (status === "open") faults.push(`rollout ${id} is open and pins policy ${pinned}`);
    }
  } finally {
    database.close();
  }
  return faults;
}

function checkModel(dataDir: string, model: ModelRow, all: readonly PolicyRow[]): string[] {
  const faults: string[] = [];
  const { name, learnt, served } = model;
  if (served !== learnt) faults.push(`${name}: learnt ${learnt}, served ${served}`);
  const policies = all.filter((policy) => policy.model === name);
  const steps = policies.map(({ step }) => step);
  if (steps.length !== learnt + 1 || steps.some((step, at) => step !== at)) {
    faults.push(`${name}: steps ${steps.join(", ")} are not 0 to ${learnt}`);
  }
  const folder = join(dataDir, "models", name);
  const staging = join(folder, "staging");
  const staged = existsSync(staging) ? readdirSync(staging) : [];
  if (staged.length > 0) faults.push(`${name}: staging folders ${staged.join(", ")}`);
  const folders = readdirSync(join(folder, "policies")).map(Number);
  if (folders.length !== steps.length || folders.some((step) => !steps.includes(step))) {
    faults.push(`${name}: policy folders ${folders.join(", ")}`);
  }
  for (const policy of policies) faults.push(...checkPolicy(join(folder, "policies"), policy));
  return faults;
}

function checkPolicy(policies: string, policy: PolicyRow): string[] {
  const folder = join(policies, String(policy.step));
  const where = `${policy.model}@${policy.step}`;
  const manifest = readManifest(folder);
  if (!manifest) return [`${where} has no manifest`];
  const faults: string[] = [];
  const parent = policy.step === 0 ? null : policy.step - 1;
  if (manifest.step !== policy.step || manifest.parent !== parent) {
    faults.push(`${where}: its manifest says step ${manifest.step} of ${manifest.parent}`);
  }
  if (manifest.operationId !== policy.operation_id) faults.push(`${where} is of another operation`);
  const names = readdirSync(folder).filter((name) => name !== "manifest.json");
  const missing = Object.keys(manifest.files).filter((name) => !names.includes(name));
  const unnamed = names.filter((name) => !(name in manifest.files));
  if (missing.length + unnamed.length > 0) {
    faults.push(`${where}: files missing [${missing.join()}], not named [${unnamed.join()}]`);
  }
  for (const [name, { sha256, bytes }] of Object.entries(manifest.files)) {
    if (missing.includes(name)) continue;
    const content = readFileSync(join(folder, name));
    const actual = createHash("sha256").update(content).digest("hex");
    if (actual !== sha256 || content.length !== bytes) faults.push(`${where}: ${name} is damaged`);
  }
  return faults;
}

function readManifest(folder: string): Manifest | null {
  try {
    return JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8")) as Manifest;
  } catch {
    return null;
  }
}

function checkEvents(
  operation: OperationRow,
  rows: readonly { seq: number; data: string }[],
): string[] {
  const faults: string[] = [];
  const where = `operation ${operation.id}`;
  if (operation.status === "queued" || operation.status === "running") {
    faults.push(`${where} is ${operation.status}`);
  }
  const events = rows.map(({ data }) => JSON.parse(data) as { type: string; seq: number });
  if (rows.some(({ seq }, i) => seq !== i + 1 || events[i]?.seq !== seq)) {
    faults.push(`${where}: event numbers ${rows.map(({ seq }) => seq).join(", ")}`);
  }
  for (const type of once) {
    const count = events.filter((event) => event.type === type).length;
    if (count > 1) faults.push(`${where}: ${count} events "${type}"`);
  }
  const types = new Set(events.map(({ type }) => type));
  const trained = operation.status === "succeeded" && operation.result?.includes('"trained":true');
  const due = trained ? ["started", "committed", "published", "ended"] : ["ended"];
  for (const type of due) if (!types.has(type)) faults.push(`${where}: no event "${type}"`);
  if (events.at(-1)?.type !== "ended") faults.push(`${where} does not end with "ended"`);
  return faults;
}

/** Each rollout and each group is of one committed step at most, and its row says of which. */
function checkTraining(
  operations: readonly OperationRow[],
  rollouts: readonly RolloutRow[],
): string[] {
  const faults: string[] = [];
  const owner = new Map(rollouts.map((row) => [row.id, row.trained_by]));
  const groups = new Map<string, string>();
  const steps = new Map<string, string>();
  for (const { id, model, type, status, from_step: from, op, result } of operations) {
    if (type !== "train" || status !== "succeeded" || !result) continue;
    const outcome = JSON.parse(result) as {
      trained: boolean;
      groups: { id: string; reason: string | null }[];
    };
    if (!outcome.trained) continue;
    const step = `${model} from ${from}`;
    if (steps.has(step)) faults.push(`${steps.get(step)} and ${id} both trained ${step}`);
    steps.set(step, id);
    const named = JSON.parse(op) as {
      groups: { id: string; rollouts: { rolloutId: string; reward: number | null }[] }[];
    };
    const used = outcome.groups.filter(({ reason }) => reason === null);
    for (const { id: group } of used) {
      if (groups.has(group)) faults.push(`group ${group} was trained twice`);
      groups.set(group, id);
      const members = named.groups.find((entry) => entry.id === group)?.rollouts ?? [];
      for (const { rolloutId, reward } of members) {
        if (reward !== null && owner.get(rolloutId) !== id) {
          faults.push(`rollout ${rolloutId} was trained by ${id}, its row says otherwise`);
        }
      }
    }
  }
  const finished = new Set(operations.filter((o) => o.status === "succeeded").map(({ id }) => id));
  for (const { id, trained_by: by } of rollouts) {
    if (by !== null && !finished.has(by)) faults.push(`rollout ${id} is claimed by ${by}`);
  }
  return faults;
}

async function isHeld(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
