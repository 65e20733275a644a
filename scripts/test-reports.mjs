// What test runs of this repository share: their environment, and the counts in their reports.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { root } from "./install.mjs";

export function testEnvironment(python) {
  return {
    ...process.env,
    HONE_PYTHON: python,
    PYTHONPATH: join(root, "packages", "server", "worker"),
    HF_HUB_OFFLINE: "1",
    // Tests share few cores: a thread pool in each would only wait for the others.
    OMP_NUM_THREADS: "1",
    OMP_WAIT_POLICY: "passive",
  };
}

/**
 * The counts of a report of vitest (JSON) or pytest (XML). Null: it was not written.
 *
 * @param {string} file
 * @returns {{passed: number, failed: number} | null}
 */
export function countReport(file) {
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return null;
  }
  if (file.endsWith(".xml")) {
    const number = (attribute) =>
      Number(new RegExp(`<testsuite [^>]*\\b${attribute}="(\\d+)"`).exec(text)?.[1] ?? 0);
    const bad = number("failures") + number("errors");
    return { passed: number("tests") - bad - number("skipped"), failed: bad };
  }
  const report = JSON.parse(text);
  const brokenFiles = report.testResults.filter(
    (f) => f.status === "failed" && f.assertionResults.length === 0,
  ).length;
  return { passed: report.numPassedTests, failed: report.numFailedTests + brokenFiles };
}
