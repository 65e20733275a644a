import { createHash, randomBytes } from "node:crypto";
import { closeSync, fsyncSync, openSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { HoneError, engineNameSchema, type EngineToken } from "@hone/core";
import { z } from "zod";
import { readStateFile } from "../../store/state-file.ts";
import { sha256Schema } from "../../ports/live-set.ts";
import type { Joined } from "./wire.ts";

const fileSchema = z.strictObject({
  version: z.literal(1),
  tokens: z.array(z.strictObject({ sha256: sha256Schema, expiresAt: z.int() })),
  engines: z.array(
    z.strictObject({ name: engineNameSchema, sha256: sha256Schema, joinedAt: z.int() }),
  ),
});

/** What the server calls the engines that it is started with. At its next start those may be more. */
const ownEngine = /^engine(-\d+)?$/;

/** Who may be an engine of this server. Keys and tokens are kept as hashes, in `engines.json`. */
export interface EngineRegistry {
  /** A token with which one engine can join. @param lifeMs how long */
  issue(lifeMs: number): EngineToken;
  /** Whether the token could be redeemed now. */
  isToken(token: string): boolean;
  /** Makes an engine with this key of the token. Throws where it is none, or the name is another's. */
  redeem(token: string, key: string, name?: string): Joined;
  /** Whose key it is; null where nobody's. */
  nameOf(key: string): string | null;
  names(): string[];
  /** Its key is worth nothing from now on. False where there is no such engine. */
  remove(name: string): boolean;
}

export function openEngineRegistry(options: {
  dataDir: string;
  /** Names that an engine cannot have. */
  taken: readonly string[];
  clock?: () => number;
}): EngineRegistry {
  const { taken, clock = Date.now } = options;
  const file = join(options.dataDir, "engines.json");
  let state = read(file);

  /** The file is written first: what is answered holds over an end of the server. */
  function change(next: z.infer<typeof fileSchema>): void {
    const tokens = next.tokens.filter(({ expiresAt }) => expiresAt > clock());
    write(file, { ...next, tokens });
    state = { ...next, tokens };
  }

  const isValid = (sha256: string) => (one: { sha256: string; expiresAt: number }) =>
    one.sha256 === sha256 && one.expiresAt > clock();

  return {
    issue(lifeMs) {
      const token = `hone_join_${randomBytes(32).toString("base64url")}`;
      const expiresAt = clock() + lifeMs;
      change({ ...state, tokens: [...state.tokens, { sha256: hashOf(token), expiresAt }] });
      return { object: "hone.engine_token", token, expiresAt };
    },

    // What is compared are hashes of secrets of 256 bits: how long that takes tells nothing about them.
    isToken: (token) => state.tokens.some(isValid(hashOf(token))),

    redeem(token, key, wanted) {
      const sha256 = hashOf(token);
      if (!state.tokens.some(isValid(sha256))) throw badToken();
      const names = new Set(state.engines.map(({ name }) => name));
      if (wanted !== undefined && (taken.includes(wanted) || ownEngine.test(wanted))) {
        throw new HoneError(
          `"${wanted}" is the name of a part that the server has, or may have, itself. Give another --name.`,
          { code: "invalid_request", param: "name" },
        );
      }
      if (wanted !== undefined && names.has(wanted)) {
        throw new HoneError(
          `There is an engine "${wanted}" already. Give another --name, or remove it with \`hone engines remove ${wanted}\`.`,
          { code: "invalid_request", param: "name" },
        );
      }
      const name = wanted ?? freeName(names);
      change({
        ...state,
        tokens: state.tokens.filter((one) => one.sha256 !== sha256),
        engines: [...state.engines, { name, sha256: hashOf(key), joinedAt: clock() }],
      });
      return { name };
    },

    nameOf(key) {
      const sha256 = hashOf(key);
      return state.engines.find((one) => one.sha256 === sha256)?.name ?? null;
    },

    names: () => state.engines.map(({ name }) => name),

    remove(name) {
      const engines = state.engines.filter((one) => one.name !== name);
      if (engines.length === state.engines.length) return false;
      change({ ...state, engines });
      return true;
    },
  };
}

export function badToken(): HoneError {
  return new HoneError(
    "The join token is wrong, was used before or is too old. On the server's machine `hone engines token` makes a new one.",
    { code: "invalid_api_key" },
  );
}

function freeName(names: ReadonlySet<string>): string {
  for (let at = 1; ; at++) if (!names.has(`joined-${at}`)) return `joined-${at}`;
}

function hashOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

function read(file: string): z.infer<typeof fileSchema> {
  const advice = "a server wrote. Move it away: engines then have to join again.";
  return readStateFile(file, fileSchema, advice) ?? { version: 1, tokens: [], engines: [] };
}

function write(file: string, state: z.infer<typeof fileSchema>): void {
  const next = `${file}.next`;
  const descriptor = openSync(next, "w", 0o600);
  writeFileSync(descriptor, `${JSON.stringify(state, null, 2)}\n`);
  fsyncSync(descriptor);
  closeSync(descriptor);
  renameSync(next, file);
  const folder = openSync(dirname(file), "r");
  fsyncSync(folder);
  closeSync(folder);
}
