import { createAdaptorServer } from "@hono/node-server";
import type { Server } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { Hono } from "hono";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import type { AppEnv } from "./env.ts";
import { installErrors } from "./errors.ts";
import { readJson } from "./json.ts";

let server: Server;
let port = 0;
/** Of a body. Where one comes, it is not late, however busy the machine is. @unit ms */
let limitMs: number;
let log: string[];
let failures: unknown[];
beforeEach(async () => {
  limitMs = 60_000;
  log = [];
  failures = [];
  const app = new Hono<AppEnv>();
  installErrors(app, pino({ level: "error" }, { write: (line: string) => void log.push(line) }));
  app.post("/echo", async (c) => {
    c.set("bodyMs", limitMs);
    const read = readJson(c, z.unknown());
    read.catch((error: unknown) => failures.push(error));
    return c.json((await read) as object);
  });
  server = createAdaptorServer({ fetch: app.fetch }) as Server;
  server.requestTimeout = 0;
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  port = (server.address() as AddressInfo).port;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
});

function begin(headers: string): { socket: Socket; closed: Promise<string> } {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (part: Buffer) => void (text += part.toString()));
  socket.on("error", () => undefined);
  const closed = new Promise<string>((done) => socket.once("close", () => done(text)));
  socket.write(
    `POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${headers}\r\n\r\n`,
  );
  return { socket, closed };
}

describe("a body", () => {
  it("that never comes is answered, and its connection closed", async () => {
    limitMs = 200;
    const { closed } = begin("content-length: 10");
    expect(await closed).toMatch(/^HTTP\/1.1 408 [\s\S]*did not arrive within/);
  });

  it("that comes byte by byte without end is no longer waited for", async () => {
    limitMs = 200;
    const { socket, closed } = begin("transfer-encoding: chunked");
    const timer = setInterval(() => socket.write("1\r\n \r\n"), 20);
    const text = await closed;
    clearInterval(timer);
    expect(failures).toMatchObject([{ status: 408 }]);
    // Who still sends when the connection is closed may lose what it has not read yet.
    expect(text).toMatch(/^(HTTP\/1.1 408 |$)/);
  });

  it("whose sender leaves is no fault of ours", async () => {
    const { socket } = begin("content-length: 10");
    socket.write("{");
    setTimeout(() => socket.destroy(), 50);
    await expect.poll(() => failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({ code: "aborted" });
    expect(log.join()).not.toContain("not foreseen");
  });

  it.each([
    ["content-encoding: gzip", "content-encoding: gzip"],
    ["content-type: application/json; charset=utf-16", '"utf-16"'],
  ])("with %s is refused", async (header, named) => {
    const [name = "", value = ""] = header.split(": ");
    const response = await fetch(`http://127.0.0.1:${port}/echo`, {
      method: "POST",
      body: "{}",
      headers: { "content-type": "application/json", [name]: value },
    });
    expect(response.status).toBe(415);
    expect(await response.text()).toContain(JSON.stringify(named).slice(1, -1));
  });

  it("in UTF-8 by any name is read", async () => {
    for (const type of ["application/json; charset=UTF-8", 'application/json;charset="utf8"']) {
      const init = {
        method: "POST",
        body: '{"a":"ü"}',
        headers: { "content-type": type, "content-encoding": "identity" },
      };
      expect(await (await fetch(`http://127.0.0.1:${port}/echo`, init)).json()).toEqual({ a: "ü" });
    }
  });
});
