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
): Promise<{ identity: Identity; link: ServerLink; base: ServedBaseOnWire }> {
  const { server, token, dataDir, log, signal } = options;
  const wait = <T>(work: () => Promise<T>): Promise<T> =>
    patiently(work, signal, log, `no server answers at ${server} yet`);
  const kept = readIdentity(dataDir);
  if (kept?.server === server) {
    const link = linkTo(server, kept.key);
    try {
      return { identity: kept, link, base: await wait(() => link.base(signal)) };
    } catch (error) {
      const isRemoved = HoneError.isInstance(error) && error.code === "invalid_api_key";
      if (!isRemoved || token === undefined) throw error;
      log.info({ engine: kept.name }, "the key of an earlier start is worth nothing any more");
    }
  }
  if (token === undefined) {
    throw new HoneError(
      kept && kept.server !== server
        ? `The key in ${dataDir} is of the server ${kept.server}. Give a token of this one as --token, or another --data-dir.`
        : "An engine that comes for the first time needs a join token: `hone engines token` on the server's machine makes one. Give it as --token, or as HONE_JOIN_TOKEN.",
      { code: "invalid_config", param: "token" },
    );
  }
  const joined = await wait(() => join(server, token, options.name, signal));
  const identity = { server, ...joined };
  await writeIdentity(dataDir, identity);
  const link = linkTo(server, joined.key);
  return { identity, link, base: await wait(() => link.base(signal)) };
}
