// A data directory as a long training run leaves it, of any size. Rows are made by SQL: a million take a minute.
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createRequire } from "node:module";
import {
  adapterList,
  fileTrainer,
  openTestState,
} from "../packages/server/src/testing/fixtures.ts";

interface Sqlite {
  exec(sql: string): void;
  close(): void;
}
const server = createRequire(new URL("../packages/server/package.json", import.meta.url));
const Database = server("libsql") as new (path: string) => Sqlite;

export const model = "agent";
/** Where lists by step, group and operation look. */
export const probes = { step: 7, group: "g77", operation: "op_77" };
const rolloutsPerStep = 640;
const rolloutsPerGroup = 8;
const openRollouts = 200;

/** One rollout in ten is an evaluation, six in a hundred failed, four expired; three completions for two. */
export async function fill(dataDir: string, rollouts: number): Promise<void> {
  const engine = adapterList();
  const made = await openTestState(dataDir, { engine: () => engine, trainer: fileTrainer() });
  await made.call("PUT", `/v1/models/${model}`, {});
  await made.call("PUT", "/v1/models/other", {});
  await made.state.close();
  const steps = Math.max(20, Math.floor(rollouts / rolloutsPerStep));
  await copyPolicies(dataDir, steps);

  const database = new Database(join(dataDir, "hone.db"));
  database.exec("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; BEGIN");
  database.exec(`
    UPDATE models SET learnt = ${steps}, served = ${steps} WHERE name = '${model}';
    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ${steps})
    INSERT INTO policies (model, step, operation_id, created_at, removed_at)
    SELECT '${model}', x, 'op_' || x, 1000000 * x, iif(x > ${steps - 10}, NULL, 1) FROM n;

    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ${steps})
    INSERT INTO operations (number, id, model, key_id, type, client_token, body_sha, op, status, from_step, work,
      result, created_at)
    SELECT x, 'op_' || x, '${model}', 'local', 'train', 't' || x, 'sha', '{"type":"train","groups":[' ||
      printf('%.*c', 8000, '7') || ']}', 'succeeded', x - 1, '[' || printf('%.*c', 20000, '7') || ']',
      '{"type":"train","trained":true,"step":' || x || ',"policy":"${model}@' || x || '","reasons":{},"groups":' ||
      '[],"metrics":{"reward":0.5,"loss":0.01},"checkpoint":null,"warnings":[]}', 1000000 * x FROM n;

    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ${steps * 40})
    INSERT INTO operation_events (operation_id, seq, data)
    SELECT 'op_' || ((x - 1) / 40 + 1), (x - 1) % 40 + 1, '{"type":"' ||
      CASE (x - 1) % 40 WHEN 0 THEN 'started' WHEN 39 THEN 'ended' ELSE 'progress' END || '","seq":' ||
      ((x - 1) % 40 + 1) || ',"at":' || (1000 * x) || ',"done":1,"total":38,"tokens":4096}' FROM n;

    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ${rollouts})
    INSERT INTO rollouts (id, key_id, model, mode, status, group_id, scenario, body_sha, step, policy_step, reward,
      metrics, metadata, logs, trained_by, created_at, closed_at)
    SELECT 'ro_' || lower(hex(randomblob(12))), 'local', iif(x % 20 = 0, 'other', '${model}'),
      iif(x % 10 = 3, 'eval', 'train'),
      CASE WHEN x > ${rollouts - openRollouts} THEN 'open' WHEN x % 100 < 6 THEN 'failed' WHEN x % 100 < 10
        THEN 'expired' ELSE 'finished' END,
      'g' || (x / ${rolloutsPerGroup}), '{"question":"' || printf('%.*c', 80, 'q') || '"}',
      lower(hex(randomblob(32))), NULL, x / ${rolloutsPerStep}, iif(x % 100 < 10, NULL, (x % 7) / 6.0),
      '{"score":1,"turns":2}', '{"seed":' || x || '}', '[]',
      iif(x % 100 >= 10 AND x % 10 <> 3 AND x % 20 <> 0, 'op_' || (x / ${rolloutsPerStep}), NULL),
      10000 + x, iif(x > ${rollouts - openRollouts}, NULL, 20000 + x) FROM n;

    INSERT INTO completions (id, rollout_id, seq, kind, parent_id, prompt_suffix, sampled, logprobs, policy,
      temperature, top_p, finish_reason, choice, choices, shared_messages, messages, answer, delivered, created_at)
    SELECT 'cmpl_' || lower(hex(randomblob(12))), id, turn, 'chat', NULL, randomblob(300), randomblob(240),
      randomblob(240), model || '@' || policy_step, 1, 1, 'stop', 0, 1, 0,
      '[{"role":"user","content":"' || lower(hex(randomblob(150))) || '"}]',
      '{"role":"assistant","content":"' || lower(hex(randomblob(100))) || '"}', 1, created_at
    FROM rollouts JOIN (SELECT 0 AS turn UNION ALL SELECT 1) WHERE turn = 0 OR rollouts.rowid % 2 = 0;
    COMMIT;
    PRAGMA wal_checkpoint(TRUNCATE);`);
  database.close();
}

/** The newest ten have their folders: what the rows name has to be there. */
async function copyPolicies(dataDir: string, steps: number): Promise<void> {
  const policies = join(dataDir, "models", model, "policies");
  for (let step = steps - 9; step <= steps; step++) {
    await cp(join(policies, "0"), join(policies, String(step)), { recursive: true });
    const file = join(policies, String(step), "manifest.json");
    const manifest = JSON.parse(await readFile(file, "utf8")) as object;
    await writeFile(file, JSON.stringify({ ...manifest, step, operationId: `op_${step}` }));
  }
}
