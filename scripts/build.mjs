// `npm run build`: JavaScript and declarations of every package, in its dist/.
import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { root } from "./install.mjs";

const packages = ["core", "transport", "client", "ruler", "recipes", "server"];
for (const name of packages) {
  rmSync(join(root, "packages", name, "dist"), { recursive: true, force: true });
  rmSync(join(root, "packages", name, "tsconfig.tsbuildinfo"), { force: true });
}
const { status } = spawnSync("npx", ["tsc", "-b", ...packages.map((name) => `packages/${name}`)], {
  cwd: root,
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);
for (const name of packages) {
  for (const file of ["index.js", "index.d.ts"]) {
    if (existsSync(join(root, "packages", name, "dist", file))) continue;
    console.error(`packages/${name}/dist/${file} was not written.`);
    process.exit(1);
  }
}
