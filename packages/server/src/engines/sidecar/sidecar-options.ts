import type { Logger } from "pino";

export interface SidecarOptions {
  /** The server's URL, without `/v1`. */
  server: string;
  /** Needed at the first start; later ones use the key that the first got. */
  token?: string | undefined;
  /** What the server calls the engine. @default the server's choice */
  name?: string | undefined;
  /** Folder or hub id of the base. @default the server's name for it */
  base?: string | undefined;
  /** What runs vLLM here, or a vLLM that others run on this machine. */
  engine:
    | {
        python: string;
        device: "cpu" | "cuda";
        maxLoras?: number | undefined;
        flags: string[];
        /** First wait before a vLLM that has ended is started again; it doubles up to 10 s. @unit ms @default 500 */
        backoffMs?: number | undefined;
      }
    | {
        url: string;
        key: string | null;
        /** What it batches (`--max-num-seqs`). @default unknown */
        maxSequences?: number | undefined;
      };
  /** @unit tokens @default the server's */
  maxModelLen?: number | undefined;
  /** @default the highest of the server's models, at least 16; of an engine by its URL unknown */
  maxLoraRank?: number | undefined;
  dataDir: string;
  /** Where the server's traffic comes in. */
  listen: { host: string; port: number };
  /** The URL by which the server reaches it. @default that of `listen` */
  advertise?: string | undefined;
  /** What kept adapters may take on the disk, besides those that are wanted. @unit bytes */
  cacheBytes: number;
  /** How long requests may go on once the sidecar stops. @unit ms */
  drainMs: number;
  /** Its key is given back when it stops: it will not come back. */
  ephemeral: boolean;
  /** Hears what an operator wants to see before vLLM is started. */
  tell?: ((line: string) => void) | undefined;
  log: Logger;
  signal: AbortSignal;
}
