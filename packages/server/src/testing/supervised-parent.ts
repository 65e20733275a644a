// Supervises one child and says its pid: the test kills this process and looks for the child.
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { supervise } from "../supervise/supervisor.ts";

const supervised = supervise({
  name: "child",
  unavailable: "worker_unavailable",
  command: process.execPath,
  args: [fileURLToPath(new URL("./supervised-child.mjs", import.meta.url))],
  log: pino({ level: "silent" }),
});
await supervised.start();
console.log(JSON.stringify({ pid: supervised.status().pid }));
