import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openDatabase } from "./database.ts";
import { modelName } from "./template.ts";
import type { Workload } from "./workload.ts";

/** SHA-256 of each file of a policy. */
export type Files = Record<string, string>;

/** Everything that a step's result is made of. */
const names = [
  "adapter_config.json",
  "adapter_model.safetensors",
  "optimizer.safetensors",
  "trainer.json",
];

function filesOf(dataDir: string, step: number): Files {
  const folder = join(dataDir, "models", modelName, "policies", String(step));
  const hash = (name: string): string =>
    createHash("sha256")
      .update(readFileSync(join(folder, name)))
      .digest("hex");
  return Object.fromEntries(names.map((name) => [name, hash(name)]));
}

/** What a client had, against what the stopped server's disk says, and against the undisturbed run. */
export function comparison(
  dataDir: string,
  step: number,
  work: Workload,
  reference: Files | null,
): { files: Files; faults: string[]; notes: string[] } {
  const files = filesOf(dataDir, step);
  const faults: string[] = [];
  for (const [name, sha] of Object.entries(reference ?? files)) {
    if (files[name] !== sha) faults.push(`${name} differs from the undisturbed run's`);
  }
  const database = openDatabase(dataDir);
  try {
    const logged = database
      .prepare("SELECT data FROM operation_events WHERE operation_id = ? ORDER BY seq")
      .all(work.operation) as { data: string }[];
    const told = work.events.map((event) => event.seq).join();
    const stored = logged.map(({ data }) => (JSON.parse(data) as { seq: number }).seq).join();
    if (told !== stored) faults.push(`the client had the events ${told}; the log has ${stored}`);

    const answers = database
      .prepare(
        `SELECT answer FROM completions WHERE delivered = 1 AND rollout_id IN (${work.rollouts.map(() => "?").join()})`,
      )
      .all(...work.rollouts) as { answer: string }[];
    const unclaimed = [...work.received];
    for (const { answer } of answers) {
      const content = (JSON.parse(answer) as { content: string | null }).content ?? "";
      const at = unclaimed.indexOf(content);
      if (at < 0) faults.push(`an answer counts as delivered that the agent did not get`);
      else unclaimed.splice(at, 1);
    }
    const notes = unclaimed.length > 0 ? [`${unclaimed.length} answers are not in the ledger`] : [];
    return { files, faults, notes };
  } finally {
    database.close();
  }
}
