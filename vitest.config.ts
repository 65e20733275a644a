import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vitest/config";

const frameworks = fileURLToPath(new URL("test/frameworks/", import.meta.url));

/** `import("./agent.ts?set=floor")`: that file and what it imports, with the packages of test/frameworks/floor. */
const sets: Plugin = {
  name: "sets",
  enforce: "pre",
  async resolveId(source, importer) {
    const query = /\?set=(\w+)$/.exec(importer ?? "");
    if (!query) return null;
    if (!source.startsWith(".")) {
      return this.resolve(source, `${frameworks}${query[1]}/package.json`, { skipSelf: true });
    }
    const file = await this.resolve(source, importer, { skipSelf: true });
    return file && `${file.id}${query[0]}`;
  },
};

export default defineConfig({
  plugins: [sets],
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
    env: {
      // Without it the ruler would make one, in the home of whoever runs the tests.
      HONE_RULER_SECRET: "of-the-tests",
      // As `npm test` has it: each server would measure how many threads are worth it, and two that are compared
      // could find different ones, and so other last bits.
      OMP_NUM_THREADS: "1",
    },
    maxWorkers: 2,
  },
});
