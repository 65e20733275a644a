import { describe } from "vitest";
import { describeEngine } from "../testing/engine-contract.ts";
import { startEmbedded, workerPython } from "../testing/running-engine.ts";

const wanted = (process.env["HONE_TEST_ENGINES"] ?? "embedded").split(",");

describe.skipIf(!wanted.includes("embedded") || !workerPython())("embedded", () => {
  describeEngine("embedded", startEmbedded);
});
