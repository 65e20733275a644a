import type { NetworkInterfaceInfo } from "node:os";
import { describe, expect, test } from "vitest";
import { isUnspecified, ownAddresses, urlOf } from "./own-address.ts";

function address(of: Partial<NetworkInterfaceInfo>): NetworkInterfaceInfo {
  return { internal: false, family: "IPv4", netmask: "", mac: "", cidr: null, ...of } as never;
}

describe("an address to listen on", () => {
  test("is what a URL names, but where it means all of them", () => {
    expect(urlOf("192.0.2.7", 1)).toBe("http://192.0.2.7:1");
    expect(urlOf("2001:db8::1", 1)).toBe("http://[2001:db8::1]:1");
    expect(urlOf("0.0.0.0", 1)).toBe("http://127.0.0.1:1");
    expect(urlOf("::", 1)).toBe("http://[::1]:1");
    expect(["0.0.0.0", "::", "127.0.0.1"].map(isUnspecified)).toEqual([true, true, false]);
  });

  test("is found among the machine's own: none of the loopback's, none that needs an interface", () => {
    const found = ownAddresses({
      lo: [address({ address: "127.0.0.1", internal: true })],
      eth0: [
        address({ address: "fe80::1", family: "IPv6" }),
        address({ address: "2001:db8::1", family: "IPv6" }),
        address({ address: "192.0.2.7" }),
      ],
    });
    expect(found).toEqual(["192.0.2.7", "[2001:db8::1]"]);
  });
});
