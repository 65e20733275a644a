import { randomBytes } from "node:crypto";
import { HoneError } from "@hone/core";
import type { ServedBaseOnWire } from "../joined/wire.ts";
import { patiently } from "./follow.ts";
import { readIdentity, writeIdentity, type Identity } from "./identity.ts";
import { join, linkTo, type ServerLink } from "./server-link.ts";
import type { SidecarOptions } from "./sidecar-options.ts";

/**
 * Comes in with the key of an earlier start, or with the token. A server that does not answer is waited for; one that
 * refuses is not.
 */
export async function enter(
  options: Pick<SidecarOptions, "server" | "token" | "name" | "dataDir" | "log" | "signal">,
): Promise<{ identity: Identity & { name: string }; link: ServerLink; base: ServedBaseOnWire }> {
  const { server, token, dataDir, log, signal } = options;
  const wait = <T>(work: () => Promise<T>): Promise<T> =>
    patiently(work, signal, log, `no server answers at ${server} yet`);
  const kept = readIdentity(dataDir);
  const isJoining = kept?.server === server && kept.name === null;
  if (kept?.server === server && kept.name !== null) {
    const link = linkTo(server, kept.key);
    try {
      const identity = { ...kept, name: kept.name };
      const base = await wait(() => link.base(signal));
      refuseOtherName(options.name, identity.name, dataDir);
      return { identity, link, base };
    } catch (error) {
      const isRemoved = HoneError.isInstance(error) && error.code === "invalid_api_key";
      if (!isRemoved || token === undefined) throw error;
      log.info({ engine: kept.name }, "the key of an earlier start is worth nothing any more");
    }
  }
  if (token === undefined && !isJoining) {
    throw new HoneError(
      kept && kept.server !== server
        ? `The key in ${dataDir} is of the server ${kept.server}. Give a token of this one as --token, or another --data-dir.`
        : "An engine that comes for the first time needs a join token: `hone engines token` on the server's machine makes one. Give it as --token, or as HONE_JOIN_TOKEN.",
      { code: "invalid_config", param: "token" },
    );
  }
  const key = isJoining ? kept.key : `hone_engine_${randomBytes(32).toString("base64url")}`;
  // On the disk before it is sent: the token is good for once, and the answer may be lost.
  await writeIdentity(dataDir, { server, name: null, key });
  const asked = { token, key, name: options.name };
  const { name } = await wait(() => join(server, asked, signal));
  const identity = { server, name, key };
  await writeIdentity(dataDir, identity);
  // An earlier start may have been given its name by an answer that was lost.
  refuseOtherName(options.name, name, dataDir);
  const link = linkTo(server, key);
  return { identity, link, base: await wait(() => link.base(signal)) };
}

function refuseOtherName(wanted: string | undefined, name: string, dataDir: string): void {
  if (wanted === undefined || wanted === name) return;
  throw new HoneError(
    `The engine of ${dataDir} has joined as "${name}" and keeps that name. Leave --name out, or give another --data-dir and a token.`,
    { code: "invalid_config", param: "name" },
  );
}
