// `npm test`: installs what is missing, then runs every check. The last line counts the tests.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { installPackages, root, setUpPython } from "./install.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";
import { printOutcome, readReport, testEnvironment } from "./test-reports.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
await installPackages();
const python = await setUpPython({ test: true });
const reports = mkdtempSync(join(tmpdir(), "hone-reports-"));
const env = testEnvironment(python);
const vitest = (name, ...args) => [
  "npx",
  [
    "vitest",
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${join(reports, name)}.json`,
    ...args,
  ],
];
const alone = ["faults", "overlap", "quickstart", "recovery", "serving", "vllm"].map(
  (name) => `test/${name}/`,
);
const stages = [
  ["types", "npx", ["tsc", "-b"]],
  ["lint", "npx", ["oxlint", "--type-aware"]],
  ["format", "npx", ["oxfmt", "--check", "."]],
  ["unused code", "npx", ["knip", "--no-progress"]],
  ["snippets", process.execPath, ["scripts/snippets.mjs", "--check"]],
  ["openapi", "npx", ["tsx", "--conditions=@hone/source", "scripts/openapi.mjs", "--check"]],
  [
    "lint of the worker",
    python,
    ["-m", "ruff", "check", "packages/server/worker", "scripts", "test", "bench/gpu"],
  ],
  [
    "format of the worker",
    python,
    ["-m", "ruff", "format", "--check", "packages/server/worker", "bench/gpu"],
  ],
  [
    "types of the worker",
    python,
    [
      "-m",
      "mypy",
      "--config-file=packages/server/worker/mypy.ini",
      "packages/server/worker/hone_worker",
    ],
  ],
  [
    "worker",
    python,
    [
      "-m",
      "pytest",
      "-q",
      `--junitxml=${join(reports, "worker.xml")}`,
      "packages/server/worker/tests",
    ],
  ],
  [
    "GPU bench, without a GPU",
    python,
    ["-m", "pytest", "-q", `--junitxml=${join(reports, "gpu.xml")}`, "bench/gpu"],
  ],
  ["unit", ...vitest("unit", "packages/")],
  ["examples", ...vitest("examples", "examples/", "experiments/")],
  ["end to end", ...vitest("e2e", "test/", ...alone.map((folder) => `--exclude=${folder}**`))],
  // What looks at times, at processes or at a machine's memory has the machine for itself.
  ["end to end, one at a time", ...vitest("e2e-alone", ...alone, "--no-file-parallelism")],
  ["build", process.execPath, ["scripts/build.mjs"]],
  [
    "packed install",
    process.execPath,
    [
      "scripts/packed.mjs",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${join(reports, "packed")}.json`,
    ],
  ],
];

let passed = 0;
let failed = 0;
/** @type {import("./test-reports.mjs").Failure[]} */
const failures = [];
const table = [];
for (const [name, command, args] of /** @type {[string, string, string[]][]} */ (stages)) {
  console.log(`\n── ${name}`);
  const start = performance.now();
  const { status } = await run(command, args, { cwd: root, env });
  table.push({
    stage: name,
    seconds: Number(((performance.now() - start) / 1000).toFixed(1)),
    ok: status === 0,
  });
  // A check that is no test runner counts as one test.
  const counted = count(name);
  if (counted) {
    passed += counted.passed;
    failed += counted.failed;
    failures.push(...counted.failures);
  }
  if (status === 0 && !counted) passed++;
  if (status !== 0 && !counted?.failed) {
    failed++;
    failures.push({ name, why: `status ${status}` });
  }
}
rmSync(reports, { recursive: true, force: true });
console.log();
console.table(table);
printOutcome(passed, failed, failures);
process.exit(failed > 0 ? 1 : 0);

function count(stage) {
  const file = {
    unit: "unit.json",
    examples: "examples.json",
    "end to end": "e2e.json",
    "end to end, one at a time": "e2e-alone.json",
    "packed install": "packed.json",
    worker: "worker.xml",
    "GPU bench, without a GPU": "gpu.xml",
  }[stage];
  return file ? readReport(join(reports, file)) : null;
}
