import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { createHttpEngine } from "./http-engine.ts";
import { addressRule } from "./addresses.ts";

it.each([
  "http://169.254.169.254/latest/meta-data",
  "http://100.100.100.200",
  "http://[fd00:ec2::254]",
  "http://[fe80::1]",
  "http://[::ffff:169.254.169.254]",
  "http://0.0.0.0:8000",
  "http://0:8000",
  "http://[::]:8000",
  "http://224.0.0.1",
  "http://255.255.255.255",
  "http://2852039166",
])("no engine is at %s", async (url) => {
  for (const from of ["127.0.0.1", "10.0.0.7", undefined]) {
    await expect(addressRule(from).require(url)).rejects.toMatchObject({ param: "url" });
  }
});

it.each([
  "http://127.0.0.1:9",
  "http://127.1.2.3",
  "http://[::1]:9",
  "http://[::ffff:127.0.0.1]",
  "http://localhost:9",
  "http://0x7f.1",
])("an engine is at %s only where its requests come from there", async (url) => {
  for (const from of ["127.0.0.1", "::1", "::ffff:127.0.0.1"]) {
    await expect(addressRule(from).require(url)).resolves.toBeUndefined();
  }
  for (const from of ["10.0.0.7", undefined]) {
    await expect(addressRule(from).require(url)).rejects.toThrow("--advertise");
  }
});

it.each(["http://10.0.0.7:8000", "http://192.168.1.2", "http://100.64.0.3", "http://[fd12::1]"])(
  "an engine in a private network may be at %s",
  async (url) => {
    await expect(addressRule("10.0.0.9").require(url)).resolves.toBeUndefined();
  },
);

it("a name that leads elsewhere by the time of a connection is not connected to", async () => {
  let asked = 0;
  const server = createServer((_, response) => {
    asked++;
    response.end("{}");
  });
  await new Promise<void>((done) => void server.listen(0, "localhost", done));
  const { port } = server.address() as AddressInfo;
  const engineFrom = (from: string) =>
    createHttpEngine({
      ...{ kind: "vllm", baseURL: () => `http://localhost:${port}`, key: () => null },
      lookup: addressRule(from).lookup,
    });
  const [far, near] = [engineFrom("10.0.0.7"), engineFrom("127.0.0.1")];
  await expect(far.metrics?.()).rejects.toThrow("engine");
  expect(asked).toBe(0);
  await expect(near.metrics?.()).resolves.toBe("{}");
  await Promise.all([far.close(), near.close()]);
  server.close();
});
