import { defineConfig } from "vitest/config";

export default defineConfig({
  ssr: { resolve: { conditions: ["@hone/source", "node", "import", "default"] } },
  resolve: { conditions: ["@hone/source", "node", "import", "default"] },
  test: {
    include: ["packages/*/src/**/*.test.ts", "examples/*/src/**/*.test.ts", "test/**/*.test.ts"],
    typecheck: { enabled: false },
    testTimeout: 30_000,
    maxWorkers: 2,
  },
});
