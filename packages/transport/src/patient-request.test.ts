import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { patientRequest } from "./patient-request.ts";
import { Agent, fetch as installedFetch, getGlobalDispatcher, setGlobalDispatcher } from "undici";
import { expect, it } from "vitest";

it("a request outlasts the limits of fetch's own dispatcher, before its headers and within its body", async () => {
  const server = createServer((request, response) => {
    const begin = (): void => {
      response.write("a");
      setTimeout(() => response.end("b"), 1500);
    };
    if (request.url === "/late") setTimeout(begin, 1500);
    else begin();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const before = getGlobalDispatcher();
  // As Node's own, but for 0.3 s instead of 300.
  const agent = new Agent({ headersTimeout: 300, bodyTimeout: 300 });
  setGlobalDispatcher(agent);
  try {
    await expect(fetch(`${url}/late`)).rejects.toThrow("fetch failed");
    const texts = await Promise.all([
      fetch(`${url}/late`, patientRequest({})).then((response) => response.text()),
      fetch(url, patientRequest({})).then((response) => response.text()),
      installedFetch(`${url}/late`, patientRequest({})).then((response) => response.text()),
    ]);
    expect(texts).toEqual(["ab", "ab", "ab"]);
  } finally {
    setGlobalDispatcher(before);
    await agent.destroy();
    server.closeAllConnections();
    server.close();
  }
});
