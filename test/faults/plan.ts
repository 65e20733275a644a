import { mulberry32 } from "@hone/core";
import { faultPoints } from "../../packages/server/src/faults/fault.ts";
import type { ProcessName } from "./server-process.ts";
import type { Trial } from "./trial.ts";

/** Points that a starting server passes too: which passing is the step's. */
const second = new Set(["publish.after-load", "worker.adapter-load"]);

/** A step does not pass the others: they have trials and tests of their own. */
const serverPoints = faultPoints.filter((point) => !/^(recovery|retention|deletion)\./.test(point));
const workerPoints = [
  "worker.load",
  "worker.forward@3",
  "worker.backward@2",
  "worker.optimizer@2",
  "worker.file-begin",
  "worker.file-half",
  "worker.file-half@2",
  "worker.file-half@3",
  "worker.file-end@4",
  "worker.result",
  "worker.adapter-load",
  "worker.decode@3",
];

function at(point: string, victim: ProcessName): Trial {
  const passing = second.has(point) ? `${point}@2` : point;
  return { name: point, point: passing, victim };
}

/** Another process than the one that passes the point: where its end matters there. */
const others: [string, ProcessName][] = [
  ["operation.staged", "worker"],
  ["operation.accepted", "worker"],
  ["operation.trained", "worker"],
  ["checkpoint.before-rename", "worker"],
  ["publish.before-load", "worker"],
  ["publish.after-load", "worker"],
  ["publish.before-alias", "worker"],
  ["operation.micro-batch", "renderer"],
  ["ledger.before-append", "renderer"],
  ["ledger.before-append", "worker"],
  ["worker.forward@3", "server"],
  ["worker.forward@3", "renderer"],
  ["worker.file-half@3", "server"],
  ["worker.result", "server"],
  ["worker.decode@3", "server"],
];

export const everyPoint: readonly Trial[] = [
  ...serverPoints.map((point) => at(point, "server")),
  ...workerPoints.map((point) => at(point, "worker")),
  ...others.map(([point, victim]) => at(point, victim)),
  {
    ...at("checkpoint.after-rename", "server"),
    name: "checkpoint.after-rename, then recovery.before-transaction",
    next: "recovery.before-transaction",
  },
  {
    ...at("operation.micro-batch", "server"),
    name: "operation.micro-batch, then checkpoint.after-rename",
    next: "checkpoint.after-rename",
  },
  ...["worker.file-half@3", "checkpoint.before-manifest", "checkpoint.before-rename"].map(
    (point): Trial => ({ name: `${point}, disk full`, point, victim: null, action: "enospc" }),
  ),
  {
    ...at("worker.forward@3", "worker"),
    name: "worker.forward@3, hangs",
    action: "hang",
    args: ["--training-deadline", "5"],
  },
];

/** Instants within the client's work, drawn from a seed: the nth is the same in every run. */
export function randomTrials(count: number, seed: number, workMs: number): Trial[] {
  const random = mulberry32(seed);
  const victims: ProcessName[] = ["server", "worker", "renderer"];
  return Array.from({ length: count }, (_, index) => {
    const afterMs = random() * workMs;
    const victim = victims[Math.floor(random() * victims.length)] ?? "server";
    return { name: `random ${index + 1}, at ${afterMs.toFixed(0)} ms`, afterMs, victim };
  });
}
