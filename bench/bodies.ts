// For how long the largest and the worst bodies hold the server's loop, and what of that a body may cost others.
//   pnpm bench bodies [--rounds 3]
// The sender is a process of its own. What is compiled at first use is no matter of a body: each is sent once before.
import { fork } from "node:child_process";
import { on, once } from "node:events";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";
import {
  chatBody,
  listOf,
  startBodyServer,
  trainBody,
} from "../packages/server/src/testing/body-server.ts";

const mebibyte = 1024 * 1024;
const said = (content: string): string => chatBody(`[{"role":"user","content":"${content}"}]`);
const member = '{"rolloutId":"ro_1","reward":1}';
const message = '{"role":"user","content":"x"}';

const bodies: readonly [name: string, path: string, body: string][] = [
  ["numbers for messages", "chat", chatBody(listOf("1", 7 * mebibyte))],
  ["wrong messages", "chat", chatBody(listOf('{"role":"user","content":1}', 800_000))],
  ["66,000 messages", "chat", chatBody(listOf(message, 66_000 * 30))],
  ["one message of 7 MiB", "chat", said("x".repeat(7 * mebibyte))],
  ["the same in two-byte letters", "chat", said("é".repeat(3.5 * mebibyte))],
  ["the same in emoji", "chat", said("😀".repeat(1.8 * mebibyte))],
  ["numbers for groups", "operation", trainBody(listOf("1", 180_000))],
  [
    "60,000 rollouts",
    "operation",
    trainBody(`[{"id":"g","rollouts":${listOf(member, 60_000 * 32)}}]`),
  ],
  ["wrong logs", "rollout", `{"logs":${listOf("1", 180_000)}}`],
  ["190,000 logs", "rollout", `{"logs":${listOf('"abcdefgh"', 190_000 * 11)}}`],
  ["a log of line ends", "rollout", `{"logs":["${"\\n".repeat(3.9 * mebibyte)}"]}`],
  ["a log of half emoji", "rollout", `{"logs":["${"\\ud83d".repeat(mebibyte)}"]}`],
];

if (process.send) await sendAll(process.argv[2] ?? "");
else await serveAll();

async function serveAll(): Promise<void> {
  const { values } = parseArgs({ options: { rounds: { type: "string", default: "3" } } });
  const server = await startBodyServer();
  const sender = fork(import.meta.filename, [server.origin], { execArgv: process.execArgv });
  const delay = monitorEventLoopDelay({ resolution: 1 });
  for (const [name, , body] of bodies) {
    const held: number[] = [];
    let status = 0;
    for (let round = 0; round <= Number(values.rounds); round++) {
      delay.reset();
      delay.enable();
      sender.send(name);
      [status] = (await once(sender, "message")) as [number];
      delay.disable();
      if (round > 0) held.push(delay.max / 1e6);
    }
    held.sort((a, b) => a - b);
    const size = (Buffer.byteLength(body) / mebibyte).toFixed(1);
    const middle = (held[held.length >> 1] ?? 0).toFixed(0);
    console.log(
      `${name.padEnd(30)} ${size.padStart(4)} MiB  ${status}  holds ${middle.padStart(4)} ms, at most ${held.at(-1)?.toFixed(0)}`,
    );
  }
  sender.kill();
  server.close();
}

/** Sends the body that each message names, and reports the answer's status. */
async function sendAll(origin: string): Promise<void> {
  const headers = { "content-type": "application/json" };
  for await (const [name] of on(process, "message")) {
    const [, path, body] = bodies.find(([known]) => known === name) ?? bodies[0]!;
    const response = await fetch(`${origin}/${path}`, { method: "POST", body, headers });
    await response.text();
    process.send?.(response.status);
  }
}
