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
];
