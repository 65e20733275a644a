import { describe } from "vitest";
import { describeEngine } from "./contract.ts";
import { startVllm } from "./testing/running-engine.ts";

// Only when asked for: `pnpm test:engine --engine vllm`. It takes minutes and 3.4 GB of packages.
const wanted = (process.env["HONE_TEST_ENGINES"] ?? "embedded").split(",");

describe.skipIf(!wanted.includes("vllm"))("vLLM", () => {
  describeEngine("vllm", startVllm);
});
