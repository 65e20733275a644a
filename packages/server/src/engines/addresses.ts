import { lookup as resolve, type LookupAddress } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { promisify } from "node:util";
import { HoneError } from "@hone/core";

const loopback = listOf([
  ["127.0.0.0", 8, "ipv4"],
  ["::1", 128, "ipv6"],
]);
/** Nobody's engine is there; the services that tell a machine in a cloud its secrets are. */
const never = listOf([
  ["0.0.0.0", 8, "ipv4"],
  ["169.254.0.0", 16, "ipv4"],
  ["100.100.100.200", 32, "ipv4"],
  ["224.0.0.0", 3, "ipv4"],
  ["::", 128, "ipv6"],
  ["fe80::", 10, "ipv6"],
  ["fd00:ec2::", 32, "ipv6"],
  ["ff00::", 8, "ipv6"],
]);

function listOf(subnets: readonly (readonly [string, number, "ipv4" | "ipv6"])[]): BlockList {
  const list = new BlockList();
  for (const [net, prefix, type] of subnets) list.addSubnet(net, prefix, type);
  return list;
}

/** `::ffff:127.0.0.1` is `127.0.0.1`. */
function has(list: BlockList, address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
  return list.check(plain, isIP(plain) === 6 ? "ipv6" : "ipv4");
}

/**
 * Where an engine may say that it is. Its key lets it name any URL, and this server sends requests there: so not to
 * addresses that mean something to this machine alone, unless the engine is on it.
 */
export interface AddressRule {
  /** Throws where the URL leads, or may not be looked up. */
  require(url: string): Promise<void>;
  /** For connections: a name may lead elsewhere by then. */
  lookup: LookupFunction;
}

/** What a refusal says. */
interface AddressWords {
  /** Whose address it would be. */
  whose: string;
  /** What follows "this-host (127.0.0.1)", where loopback is not allowed. */
  near: string;
  /** What to do about a name that is not known. */
  unknown: string;
}

/** @param from the address that the request came from which names another one */
export function addressRule(
  from: string | undefined,
  words: AddressWords = {
    whose: "an engine",
    near: `is this server's own machine, and the engine's request came from ${from ?? "elsewhere"}. Give \`hone engine\` an --advertise URL at which the server reaches it.`,
    unknown: "Look at --advertise.",
  },
): AddressRule {
  const isNear = from !== undefined && has(loopback, from);

  function refusal(host: string, address: string): HoneError | null {
    const where = host === address ? host : `${host} (${address})`;
    if (has(never, address)) {
      return refused(`${where} is no address at which ${words.whose} can be.`);
    }
    if (isNear || !has(loopback, address)) return null;
    return refused(`${where} ${words.near}`);
  }

  return {
    async require(url) {
      const host = new URL(url).hostname.replace(/^\[(.*)\]$/, "$1");
      const found: LookupAddress[] = isIP(host)
        ? [{ address: host, family: isIP(host) }]
        : await promisify(resolve)(host, { all: true }).catch((cause: unknown) => {
            const message = `This machine does not know the name ${host}. ${words.unknown}`;
            throw new HoneError(message, {
              ...{ code: "engine_unavailable", cause, retryAfterMs: 2_000 },
            });
          });
      for (const { address } of found) {
        const error = refusal(host, address);
        if (error) throw error;
      }
    },
    lookup(host, options, done) {
      resolve(host, { ...options, all: true }, (error, found) => {
        const bad = error ?? found.map(({ address }) => refusal(host, address)).find(Boolean);
        if (bad || !found[0]) return done(bad ?? new Error("no address"), "", 0);
        if (options.all) done(null, found);
        else done(null, found[0].address, found[0].family);
      });
    },
  };
}

function refused(message: string): HoneError {
  return new HoneError(message, { code: "invalid_request", param: "url" });
}
