// What test runs of this repository share: their environment, and what their reports say.
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
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

/** @typedef {{name: string, why: string}} Failure */

/**
 * What a report of vitest (JSON) or pytest (XML) counts, and what failed. Null: it was not written.
 *
 * @param {string} file
 * @returns {{passed: number, failed: number, failures: Failure[]} | null}
 */
export function readReport(file) {
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return null;
  }
  return file.endsWith(".xml") ? pytestReport(text) : vitestReport(JSON.parse(text));
}

/**
 * The last lines of a run: what failed and why, then the counts. Where only the end of a log is kept, it says enough.
 *
 * @param {number} passed
 * @param {number} failed
 * @param {readonly Failure[]} failures
 */
export function printOutcome(passed, failed, failures) {
  for (const { name, why } of failures) {
    console.log(`FAILED: ${name}`);
    // Frames of the test runner say nothing.
    const lines = why.split("\n").filter((line) => line.trim() && !line.includes("node_modules"));
    for (const line of lines.slice(0, 12)) console.log(`  ${line.slice(0, 300)}`);
  }
  console.log(`${passed} passed, ${failed} failed`);
}

/** @returns {{passed: number, failed: number, failures: Failure[]}} */
function pytestReport(text) {
  const of = (attributes, name) =>
    unescaped(new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
  const suite = /<testsuite ([^>]*)>/.exec(text)?.[1] ?? "";
  const failed = Number(of(suite, "failures")) + Number(of(suite, "errors"));
  const failures = [];
  for (const [, test = "", failure = ""] of text.matchAll(
    /<testcase ([^>]*[^/])><(?:failure|error) ([^>]*)>/g,
  )) {
    const name = `${of(test, "classname")} > ${of(test, "name")}`;
    failures.push({ name, why: of(failure, "message") });
  }
  return {
    passed: Number(of(suite, "tests")) - failed - Number(of(suite, "skipped")),
    failed,
    failures,
  };
}

function unescaped(attribute) {
  const signs = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&", "#10": "\n" };
  return attribute.replace(/&(lt|gt|quot|apos|amp|#10);/g, (_, name) => signs[name]);
}

/** @returns {{passed: number, failed: number, failures: Failure[]}} */
function vitestReport(report) {
  const failures = [];
  let broken = 0;
  for (const file of report.testResults) {
    const path = relative(root, file.name);
    // It could not be loaded, or a hook of it failed: then its tests were skipped.
    if (file.status === "failed" && file.assertionResults.every((t) => t.status !== "failed")) {
      broken++;
      failures.push({ name: path, why: file.message });
    }
    for (const test of file.assertionResults) {
      if (test.status !== "failed") continue;
      failures.push({ name: `${path} > ${test.fullName}`, why: test.failureMessages.join("\n") });
    }
  }
  return { passed: report.numPassedTests, failed: report.numFailedTests + broken, failures };
}
