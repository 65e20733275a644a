import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { listen } from "./listen.ts";

/** Connects so often at once, and says how many of them were let in within the time. */
const burst = `
  const { connect } = require("node:net");
  const [port, count, ms] = process.argv.slice(1).map(Number);
  let open = 0;
  for (let n = 0; n < count; n += 1) connect(port, "127.0.0.1", () => { open += 1; }).on("error", () => {});
  setTimeout(() => { process.stdout.write(String(open)); process.exit(); }, ms);
`;

function allowed(): number {
  try {
    return Number(readFileSync("/proc/sys/net/core/somaxconn", "utf8"));
  } catch {
    return 0;
  }
}

it.skipIf(allowed() < 2_000)(
  "lets a burst of a thousand connections in while it is busy",
  async () => {
    const server = createServer();
    const port = await listen(server, 0, "127.0.0.1");
    const args = ["-e", burst, String(port), "1000", "4000"];
    const client = promisify(execFile)(process.execPath, args, { timeout: 60_000 });
    // Nothing is accepted meanwhile: what is let in stands in the queue.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6_000);
    const { stdout } = await client;
    expect(stdout).toBe("1000");
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  },
);
