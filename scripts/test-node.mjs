// What hangs on the Node it runs on, on another Node than this one: node scripts/test-node.mjs [VERSION].
// The npm package `node` carries the program. The last line counts the tests. Packs what the build has made.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { installPackages, root, setUpPython } from "./install.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";
import { printOutcome, readReport, testEnvironment } from "./test-reports.mjs";

const version = process.argv[2] ?? "24.21.0";
const reports = mkdtempSync(join(tmpdir(), "hone-reports-"));
onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
await installPackages();
const node = await installNode();
if (!node) {
  // Without a registry there is none to be had: no fault of the code, but CI must not pass over it.
  const inCI = Boolean(process.env.CI);
  console.error(`Node ${version} could not be installed: nothing was tested on it.`);
  const failure = { name: `tests on Node ${version}`, why: "it could not be installed" };
  printOutcome(0, inCI ? 1 : 0, inCI ? [failure] : []);
  process.exit(inCI ? 1 : 0);
}
const env = {
  ...testEnvironment(await setUpPython({ test: true })),
  PATH: [dirname(node), process.env.PATH].join(delimiter),
};
const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
// What the Python processes do hangs on no Node; the tests of both together run on this machine's own.
const ofPython = ["server/src/setup", "**/real-worker*", "**/four-bit-worker*", "**/doctor.test*"];
const runs = {
  unit: [
    ...[vitest, "run", "packages/", "examples/"],
    ...ofPython.map((path) => `--exclude=packages/${path}${path.endsWith("*") ? "" : "/**"}`),
  ],
  // With the releases that this machine's own Node is too old for.
  frameworks: [vitest, "run", "--no-file-parallelism", "test/frameworks/"],
  packed: [join(root, "scripts", "packed.mjs")],
};
let passed = 0;
let failed = 0;
/** @type {import("./test-reports.mjs").Failure[]} */
const failures = [];
for (const [name, args] of Object.entries(runs)) {
  console.log(`\n── ${name} on Node ${version}`);
  const report = join(reports, `${name}.json`);
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const { status } = await run(node, [...args, ...reporters], { cwd: root, env });
  const counted = readReport(report) ?? { passed: 0, failed: 0, failures: [] };
  passed += counted.passed;
  failed += counted.failed;
  for (const { name: test, why } of counted.failures) {
    failures.push({ name: `${test} (Node ${version})`, why });
  }
  if (status !== 0 && counted.failed === 0) {
    failed++;
    failures.push({ name: `${name} on Node ${version}`, why: `status ${status}` });
  }
}
rmSync(reports, { recursive: true, force: true });
printOutcome(passed, failed, failures);
process.exit(failed > 0 ? 1 : 0);

/** Resolves to the program, null where it cannot be had. */
async function installNode() {
  const { tsImport } = await import("tsx/esm/api");
  const { cacheDir } = await tsImport("../packages/server/src/setup/paths.ts", import.meta.url);
  const folder = join(cacheDir(), "node", version);
  const program = join(folder, "node_modules", "node", "bin", "node");
  if (!existsSync(program)) {
    const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
    await run("npm", ["install", "--prefix", folder, ...quiet, `node@${version}`], {
      stdio: ["ignore", "ignore", "inherit"],
    });
  }
  if (!existsSync(program)) return null;
  const { status, stdout } = await run(program, ["--version"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  return status === 0 && stdout.trim() === `v${version}` ? program : null;
}
