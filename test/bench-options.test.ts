import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const bench = (...given: string[]) =>
  spawnSync(process.execPath, ["scripts/bench.mjs", ...given], { cwd: root, encoding: "utf8" });

describe("benches and experiments", () => {
  const known = /Use one of: (.*)\./;
  const namesOf = (folder: string): string[] =>
    known.exec(bench(folder, "none-such").stderr)?.[1]?.split(", ") ?? [];

  it.each(["bench", "experiments"])("say in %s how they are called", (folder) => {
    const names = namesOf(folder);
    expect(names.length).toBeGreaterThan(10);
    for (const name of names) {
      // Those that tell it themselves take as long as their imports.
      const source = readFileSync(`${root}/${folder}/${name}.ts`, "utf8");
      if (/help: \{|"--help"/.test(source)) continue;
      const { status, stdout, stderr } = bench(folder, name, "--help");
      expect({ name, status, stderr }).toEqual({ name, status: 0, stderr: "" });
      expect(stdout).toContain(`pnpm ${folder === "bench" ? "bench" : "experiment"}`);
      expect(stdout).not.toContain("//");
    }
    const all = bench(folder, "--help");
    expect(all.status).toBe(0);
    for (const name of names) expect(all.stdout).toContain(name);
  });

  it("each reads its options so that one that it does not know is refused", () => {
    for (const folder of ["bench", "experiments"]) {
      const files = readdirSync(`${root}/${folder}`);
      for (const name of namesOf(folder).filter((one) => files.includes(`${one}.ts`)))
        expect({
          name,
          parses: readFileSync(`${root}/${folder}/${name}.ts`, "utf8").includes("parseArgs({"),
        }).toEqual({ name, parses: true });
    }
  });

  it("refuse an option that they do not know in one line", () => {
    const { status, stderr } = bench("bench", "router", "--fast");
    expect(status).toBe(2);
    expect(stderr).toBe("Unknown option '--fast'. --help shows what there is.\n");
  });

  it("refuse a name that there is not", () => {
    expect(bench("bench", "none-such").status).toBe(2);
    expect(bench("experiments").status).toBe(2);
  });
});
