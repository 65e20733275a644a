import { defineConfig } from "vitest/config";

export default defineConfig({
  ssr: { resolve: { conditions: ["@hone/source", "node", "import", "default"] } },
  resolve: { conditions: ["@hone/source", "node", "import", "default"] },
  test: {
    include: [
      "packages/*/src/**/*.test.ts",
      "examples/*/src/**/*.test.ts",
      "experiments/**/*.test.ts",
      "test/**/*.test.ts",
    ],
    typecheck: { enabled: false },
    // Limits for what hangs: a busy machine is many times slower than an idle one.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 30_000 } },
    // Without it the ruler would make one, in the home of whoever runs the tests.
    env: { HONE_RULER_SECRET: "of-the-tests" },
    maxWorkers: 2,
  },
});
