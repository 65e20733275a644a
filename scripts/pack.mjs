// The tarballs that would be published, and what the release checks say of them.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import process from "node:process";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { pnpm, root } from "./install.mjs";
import { run } from "./processes.mjs";

/** The folders of the packages that are published. */
const packages = readdirSync(join(root, "packages")).filter((name) => {
  const file = join(root, "packages", name, "package.json");
  return existsSync(file) && !JSON.parse(readFileSync(file, "utf8")).private;
});

/** Packs what `npm run build` has made. Resolves to the tarballs' paths. */
export async function pack(folder) {
  const [command, ...prefix] = pnpm();
  for (const name of packages) {
    const args = [...prefix, "pack", "--pack-destination", folder];
    const cwd = join(root, "packages", name);
    const { status } = await run(command, args, { cwd, stdio: ["ignore", "pipe", "inherit"] });
    if (status !== 0) throw new Error(`packages/${name} could not be packed.`);
  }
  const files = readdirSync(folder);
  return packages.map((name) => {
    const file = files.find((one) => one.startsWith(`hone-${name}-`) && one.endsWith(".tgz"));
    if (!file) throw new Error(`packages/${name} was packed under another name.`);
    return join(folder, file);
  });
}

/** Resolves to the number of tarballs that publint or attw object to; what they object to is printed. */
export async function checkTarballs(tarballs) {
  const bin = createRequire(import.meta.url).resolve("@arethetypeswrong/cli/package.json");
  const attw = join(dirname(bin), "dist", "index.js");
  let failed = 0;
  for (const tarball of tarballs) {
    const content = readFileSync(tarball);
    const { messages, pkg } = await publint({
      pack: {
        tarball: content.buffer.slice(content.byteOffset, content.byteOffset + content.length),
      },
      level: "suggestion",
    });
    for (const message of messages) console.error(`${tarball}: ${formatMessage(message, pkg)}`);
    // ESM only is meant: Node 20.19 and later can require it.
    const { status, stdout } = await run(
      process.execPath,
      [attw, tarball, "--profile", "esm-only", "--no-color", "--format", "ascii"],
      { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
    );
    if (status !== 0) console.error(stdout);
    if (status !== 0 || messages.length > 0) failed++;
  }
  return failed;
}
