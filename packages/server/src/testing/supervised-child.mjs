// A child that keeps the contract of docs/worker-contract.md, with the faults that the tests ask for.
import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";

const fault = process.env["FAULT"] ?? "";
const boot = process.env["HONE_BOOT_ID"];
let progress = 0;
let phase = "idle";
let works = false;

if (fault === "dies-at-start") {
  console.error("Traceback of something");
  console.error("no base at /nowhere");
  process.exit(3);
}
if (fault === "shows-environment") {
  console.error(
    Object.keys(process.env)
      .filter((name) => /^(HONE|AWS|FAULT)/.test(name))
      .join(" "),
  );
  process.exit(3);
}
if (process.env["LAST"]) {
  console.error(`a line before\n${process.env["LAST"]}`);
  process.exit(5);
}
if (fault === "dies-after-first" && existsSync(process.env["MARK"])) process.exit(4);
if (fault === "dies-after-first") writeFileSync(process.env["MARK"], "");
if (fault === "ignores-term") process.on("SIGTERM", () => {});
if (fault === "has-grandchild") {
  // It ignores SIGTERM and does not watch its input: only a signal to the group ends it.
  const source = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000)";
  const grandchild = spawn(process.execPath, ["-e", source], { stdio: "ignore" });
  writeFileSync(process.env["MARK"], String(grandchild.pid));
}

const server = createServer((request, response) => {
  if (request.headers.authorization !== `Bearer ${process.env["HONE_WORKER_KEY"]}`) {
    response.writeHead(401).end();
    return;
  }
  if (request.url === "/hang") phase = "training";
  if (request.url === "/work") {
    phase = "training";
    works = true;
  }
  // Between any two looks at it, however seldom the machine lets either run.
  if (works) progress++;
  response.end(
    JSON.stringify({ status: "ok", boot, progress, phase, key: process.env["HONE_API_KEY"] }),
  );
});
if (fault === "slow-start" || fault === "stuck-start") {
  // Longer than the test's limit for a start, in steps that are much shorter than it. A start that is stuck has no end.
  const stuck = fault === "stuck-start";
  const steps = stuck ? Infinity : 15;
  for (let at = 0; at < steps; at++) {
    if (!stuck) progress = at;
    const now = at < 8 || stuck ? "loading" : "compiling";
    console.log(JSON.stringify({ phase: now, progress, boot }));
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
server.listen(0, "127.0.0.1", () => {
  console.log("a library greets");
  if (fault === "never-ready") return;
  const shown = fault === "wrong-boot" ? "another" : boot;
  console.log(JSON.stringify({ ready: true, port: server.address().port, boot: shown }));
});
if (fault !== "outlives") process.stdin.on("end", () => process.exit(0)).resume();
