import { HoneError, kindOf } from "@hone/core";
import { originOf, requireURL, serverURLOf } from "./server-url.ts";

/** The server that a data directory announces, if its process lives: see `announcedServer` of `@hone/transport/node`. */
export type Announced =
  | { server: { url: string; key: string | null }; absence?: undefined }
  /** Why there is none, as the beginning of a sentence. */
  | { server: null; absence: string };

export interface ServerSources {
  /** What the call itself says. */
  baseURL?: string | URL | undefined;
  apiKey?: string | undefined;
  /** Its HONE_URL and HONE_API_KEY are read; empty ones count as unset. */
  environment: Readonly<Record<string, string | undefined>>;
  announced: Announced;
  /** The call names the data directory, which then stands before the environment. @default false */
  dataDirNamed?: boolean | undefined;
}

export interface FoundServer {
  /** Its origin and path prefix, with no trailing slash and without `/v1`. */
  serverURL: string;
  apiKey: string;
  /** It is the one that the data directory announces. */
  isAnnounced: boolean;
}

/** How messages name what is missing. */
export interface Wording {
  /** Who needs the server. */
  label?: string | undefined;
  /** The caller types flags, and passes no options. */
  commandLine?: boolean | undefined;
}

/**
 * Which server is meant, and the key that it may be sent: the one rule for client, ruler and command line
 * (docs/decisions/0024-who-may-have-the-key.md).
 *
 * What the call says comes first, then a data directory that it names, then the environment, then the usual data
 * directory. A key goes only to the origin that it belongs to: `apiKey` to the server of the call; HONE_API_KEY to
 * that of HONE_URL, and where that is unset to any that is meant; the key in a data directory to the server that it
 * announces, as long as that one's process lives. Throws `invalid_config` where a server or its key is missing.
 */
export function findServer(sources: ServerSources, wording: Wording = {}): FoundServer {
  const { environment, dataDirNamed = false } = sources;
  const announced = sources.announced.server;
  const home = environment["HONE_URL"] || undefined;
  const wanted = sources.baseURL ?? (dataDirNamed ? announced?.url : (home ?? announced?.url));
  if (wanted === undefined) throw noServer(sources.announced, wording);
  const url = requireURL(wanted);
  const origin = originOf(url.href);
  const isAnnounced = announced !== null && originOf(announced.url) === origin;
  const fromFile = (isAnnounced && announced.key) || undefined;
  const isHome = home === undefined || (URL.canParse(home) && originOf(home) === origin);
  const fromEnvironment = (isHome && environment["HONE_API_KEY"]) || undefined;
  const key =
    sources.apiKey ??
    (dataDirNamed ? (fromFile ?? fromEnvironment) : (fromEnvironment ?? fromFile));
  if (key === undefined) throw noKey(url.origin, wording);
  return { serverURL: serverURLOf(url), apiKey: readKey(key), isAnnounced };
}

/** What no header can hold would be quoted by the error of the header. */
function readKey(apiKey: unknown): string {
  const key = typeof apiKey === "string" ? apiKey.trim() : null;
  if (key && /^[\x21-\x7e]+$/.test(key)) return key;
  const given =
    key === null ? kindOf(apiKey) : key === "" ? "an empty one" : "one with other characters";
  throw new HoneError(
    `apiKey is a text of printable ASCII characters without spaces, not ${given}. Pass what the server printed.`,
    { code: "invalid_config", param: "apiKey" },
  );
}

function noServer(
  { absence = "No Hone server was found" }: Announced,
  { label, commandLine }: Wording,
): HoneError {
  const who = label === undefined ? "" : `, and ${label} needs one`;
  const named = commandLine ? "name another with --url" : "pass baseURL and apiKey";
  return new HoneError(
    `${absence}${who}. Start one with \`npx @hone/server serve\` (in a clone: \`npm run hone -- serve\`), or ${named} (or set HONE_URL and HONE_API_KEY).`,
    { code: "invalid_config", param: "baseURL" },
  );
}

function noKey(origin: string, { label, commandLine }: Wording): HoneError {
  const where = label === undefined ? origin : `${label} at ${origin}`;
  return new HoneError(
    `No API key for ${where}. ${commandLine ? "Set" : "Pass apiKey, or set"} HONE_URL to that server and HONE_API_KEY to what it printed.`,
    { code: "invalid_config", param: "apiKey" },
  );
}
