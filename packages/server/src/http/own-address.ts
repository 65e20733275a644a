import { networkInterfaces } from "node:os";

/** Whether an address means "all of this machine's". It can be listened on, but not be connected to. */
export function isUnspecified(host: string): boolean {
  return host === "0.0.0.0" || host === "::" || host === "[::]";
}

/** This machine's addresses as others see them, written as in a URL, IPv4 first. */
export function ownAddresses(interfaces = networkInterfaces()): string[] {
  const all = Object.values(interfaces).flatMap((addresses) => addresses ?? []);
  // A link-local address of IPv6 means nothing without the caller's own interface.
  const usable = all.filter(({ internal, address }) => !internal && !/^fe80:/i.test(address));
  const of = (family: string) => usable.filter((one) => one.family === family);
  return [
    ...of("IPv4").map(({ address }) => address),
    ...of("IPv6").map(({ address }) => `[${address}]`),
  ];
}

/** A URL's origin for an address to listen on. An unspecified one is reached by the loopback's. */
export function urlOf(host: string, port: number): string {
  if (host === "0.0.0.0") return `http://127.0.0.1:${port}`;
  if (isUnspecified(host)) return `http://[::1]:${port}`;
  return `http://${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`;
}
