import { expect, it } from "vitest";
import { workerCommand } from "./worker-command.ts";

const options = {
  ...{ python: "python", base: "/base", dataDir: "/data", device: "cpu" as const },
  ...{ kvCacheMib: 64, rewardModels: { good: "/good" }, objectives: ["/mine.py"] },
};

function argumentsOf(does: Parameters<typeof workerCommand>[1]["does"]): string {
  return workerCommand(options, { baseName: "base", does }).args.join(" ");
}

it("a worker that only generates gets nothing of the trainer's, and one beside it spares its memory", () => {
  const mine = /--reward-model good=\/good --objectives \/mine\.py/;
  expect(argumentsOf("both")).toMatch(mine);
  expect(argumentsOf("both")).not.toMatch(/--no-engine|--spare-cache/);
  expect(argumentsOf("train")).toMatch(/--no-engine$/);
  const beside = workerCommand(options, {
    ...{ baseName: "base", does: "train" as const, releasesAfterStep: true },
  });
  expect(beside.args).toContain("--release-after-step");
  expect(argumentsOf("train")).not.toContain("--release-after-step");
  expect(argumentsOf("train-beside")).toMatch(mine);
  expect(argumentsOf("train-beside")).toMatch(/--no-engine --spare-cache$/);
  expect(argumentsOf("generate")).not.toMatch(
    /--reward-model|--objectives|--threads-file|--no-eng/,
  );
  for (const does of ["generate", "train-beside"] as const) {
    expect(argumentsOf(does)).toContain("--cache-mib 64");
  }
});

it("every worker computes by the same paths, because logprobs are computed by each", () => {
  const command = { baseName: "base" };
  for (const does of ["both", "train", "train-beside", "generate"] as const) {
    const { args } = workerCommand({ ...options, paths: "layer=eager" }, { ...command, does });
    expect(args.join(" ")).toContain("--paths layer=eager");
    expect(argumentsOf(does)).not.toContain("--paths");
  }
});

it.each([
  ["8", undefined, "4"],
  ["1", undefined, "1"],
  ["3", undefined, "1"],
  ["8", "2", "2"],
  ["8", "16", "4"],
  ["8", "many", "4"],
])("of %s cores, with OMP_NUM_THREADS %s, each of two may use %s", (cores, given, wanted) => {
  const { env } = workerCommand(
    options,
    { baseName: "base", does: "generate" },
    { cores: Number(cores), given },
  );
  expect(env["OMP_NUM_THREADS"]).toBe(wanted);
});

it("one that does both keeps the operator's number", () => {
  const { env } = workerCommand(options, { baseName: "base", does: "both" });
  expect(env).not.toHaveProperty("OMP_NUM_THREADS");
});
