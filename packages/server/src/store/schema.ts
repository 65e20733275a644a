/** One entry per schema version; `user_version` counts those that a database has had. Never edit an old one. */
export const migrations: readonly string[] = [
  `CREATE TABLE models (
     name TEXT PRIMARY KEY,
     base TEXT NOT NULL,
     lora_r INTEGER NOT NULL,
     lora_alpha REAL NOT NULL,
     seed INTEGER NOT NULL,
     learnt INTEGER NOT NULL,
     served INTEGER NOT NULL,
     cursor TEXT,
     created_at INTEGER NOT NULL
   ) STRICT;
   CREATE TABLE policies (
     model TEXT NOT NULL,
     step INTEGER NOT NULL,
     operation_id TEXT NOT NULL,
     created_at INTEGER NOT NULL,
     PRIMARY KEY (model, step)
   ) STRICT;
   CREATE TABLE rollouts (
     id TEXT PRIMARY KEY,
     key_id TEXT NOT NULL,
     model TEXT NOT NULL,
     mode TEXT NOT NULL,
     status TEXT NOT NULL,
     group_id TEXT,
     scenario TEXT,
     body_sha TEXT NOT NULL,
     step INTEGER,
     policy_step INTEGER,
     reward REAL,
     metrics TEXT NOT NULL,
     metadata TEXT NOT NULL,
     logs TEXT NOT NULL,
     error TEXT,
     trained_by TEXT,
     created_at INTEGER NOT NULL,
     closed_at INTEGER
   ) STRICT;
   CREATE INDEX rollouts_open ON rollouts (id) WHERE status = 'open';
   CREATE INDEX rollouts_trained_by ON rollouts (trained_by) WHERE trained_by IS NOT NULL;
   CREATE TABLE completions (
     id TEXT PRIMARY KEY,
     rollout_id TEXT NOT NULL,
     seq INTEGER NOT NULL,
     parent_id TEXT,
     prompt_suffix BLOB NOT NULL,
     sampled BLOB NOT NULL,
     logprobs BLOB NOT NULL,
     policy TEXT NOT NULL,
     temperature REAL NOT NULL,
     top_p REAL NOT NULL,
     seed INTEGER,
     finish_reason TEXT NOT NULL,
     choice INTEGER NOT NULL,
     choices INTEGER NOT NULL,
     shared_messages INTEGER NOT NULL,
     messages TEXT NOT NULL,
     tools TEXT,
     answer TEXT NOT NULL,
     delivered INTEGER NOT NULL,
     split_reason TEXT,
     created_at INTEGER NOT NULL,
     UNIQUE (rollout_id, seq)
   ) STRICT;
   CREATE TABLE operations (
     number INTEGER PRIMARY KEY,
     id TEXT NOT NULL UNIQUE,
     model TEXT NOT NULL,
     key_id TEXT NOT NULL,
     type TEXT NOT NULL,
     client_token TEXT NOT NULL,
     body_sha TEXT NOT NULL,
     expected_step INTEGER,
     op TEXT NOT NULL,
     status TEXT NOT NULL,
     from_step INTEGER,
     work TEXT,
     result TEXT,
     error TEXT,
     deaths INTEGER NOT NULL DEFAULT 0,
     abort_requested INTEGER NOT NULL DEFAULT 0,
     created_at INTEGER NOT NULL,
     UNIQUE (model, key_id, client_token)
   ) STRICT;
   CREATE TABLE operation_events (
     operation_id TEXT NOT NULL,
     seq INTEGER NOT NULL,
     data TEXT NOT NULL,
     PRIMARY KEY (operation_id, seq)
   ) STRICT;`,
  // Plain prompts beside chats.
  "ALTER TABLE completions ADD COLUMN kind TEXT NOT NULL DEFAULT 'chat';",
  // Retention, and what lists and gc look up.
  `ALTER TABLE policies ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE policies ADD COLUMN removed_at INTEGER;
   CREATE INDEX rollouts_by_model ON rollouts (model, created_at);
   CREATE INDEX rollouts_evaluated ON rollouts (model, policy_step) WHERE mode = 'eval';`,
  // Answers that a grammar held.
  "ALTER TABLE completions ADD COLUMN constrained INTEGER NOT NULL DEFAULT 0;",
  // What lists, retention and gc look up, at a million rollouts. Names of indices are used in queries.
  `DROP INDEX rollouts_trained_by;
   DROP INDEX rollouts_evaluated;
   CREATE INDEX rollouts_by_mode ON rollouts (model, mode, created_at);
   CREATE INDEX rollouts_by_status ON rollouts (model, status, created_at);
   CREATE INDEX rollouts_by_step ON rollouts (model, policy_step, created_at) WHERE policy_step IS NOT NULL;
   CREATE INDEX rollouts_by_group ON rollouts (model, group_id, created_at) WHERE group_id IS NOT NULL;
   CREATE INDEX rollouts_by_operation ON rollouts (trained_by, created_at) WHERE trained_by IS NOT NULL;
   CREATE INDEX rollouts_abandoned ON rollouts (closed_at)
     WHERE status IN ('failed', 'expired') AND trained_by IS NULL;
   CREATE INDEX operations_by_model ON operations (model, key_id);
   CREATE INDEX operations_by_type ON operations (model, key_id, type);
   CREATE INDEX operations_unfinished ON operations (number) WHERE status IN ('queued', 'running');
   CREATE INDEX events_started ON operation_events (operation_id, json_extract(data, '$.at'))
     WHERE json_extract(data, '$.type') = 'started';
   CREATE INDEX events_ended ON operation_events (operation_id, json_extract(data, '$.at'))
     WHERE json_extract(data, '$.type') = 'ended';

   CREATE TABLE evaluations (
     model TEXT NOT NULL,
     step INTEGER NOT NULL,
     rollouts INTEGER NOT NULL,
     reward_sum REAL,
     PRIMARY KEY (model, step)
   ) STRICT, WITHOUT ROWID;
   INSERT INTO evaluations
     SELECT model, policy_step, count(*), sum(reward) FROM rollouts
     WHERE mode = 'eval' AND status = 'finished' AND reward IS NOT NULL AND policy_step IS NOT NULL
     GROUP BY model, policy_step;
   CREATE TRIGGER rollouts_unevaluated BEFORE UPDATE OF status, reward, policy_step ON rollouts
     WHEN old.mode = 'eval' AND old.status = 'finished' AND old.reward IS NOT NULL AND old.policy_step IS NOT NULL
   BEGIN
     UPDATE evaluations SET rollouts = rollouts - 1, reward_sum = reward_sum - old.reward
     WHERE model = old.model AND step = old.policy_step;
   END;
   CREATE TRIGGER rollouts_evaluated AFTER UPDATE OF status, reward, policy_step ON rollouts
     WHEN new.mode = 'eval' AND new.status = 'finished' AND new.reward IS NOT NULL AND new.policy_step IS NOT NULL
   BEGIN
     INSERT INTO evaluations VALUES (new.model, new.policy_step, 1, new.reward)
     ON CONFLICT DO UPDATE SET rollouts = rollouts + 1, reward_sum = reward_sum + excluded.reward_sum;
   END;`,
  // Names of deleted models: never used again. Without `cleared_at` rows of theirs are still to be deleted.
  `CREATE TABLE deleted_models (
     name TEXT PRIMARY KEY,
     deleted_at INTEGER NOT NULL,
     cleared_at INTEGER
   ) STRICT;`,
  // What a model's chats are rendered with, as JSON; NULL for the renderer's defaults.
  "ALTER TABLE models ADD COLUMN chat_template_kwargs TEXT;",
  // Token ids of the examples of a supervised step, as 32-bit integers, until its operation has ended.
  `CREATE TABLE example_tokens (
     operation_id TEXT PRIMARY KEY,
     tokens BLOB NOT NULL
   ) STRICT;`,
  // How the base was held that a model's adapters were trained on; NULL: with all of its bits.
  "ALTER TABLE models ADD COLUMN quantize TEXT;",
];
