// Publishes the packages whose version the registry does not have: `npm run release`, in a release job on
// GitHub, which is what gives them provenance. `--dry-run` does all but publish, anywhere.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fail, installPackages, root } from "./install.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";

const dryRun = process.argv.includes("--dry-run");
// What stands in a manifest must be the repository that the provenance names, so it is taken from the job.
const { GITHUB_REPOSITORY: repository, ACTIONS_ID_TOKEN_REQUEST_URL: identity } = process.env;
if (!dryRun && (!repository || !identity)) {
  fail(
    "A release has provenance, which only a job on GitHub with `id-token: write` can give. Try --dry-run here.",
  );
}

/** @type {Map<string, string>} */
const originals = new Map();
const restore = () => {
  for (const [file, text] of originals) writeFileSync(file, text);
  originals.clear();
};
onInterrupt(() => {
  void endAll().then(() => {
    restore();
    process.exit(130);
  });
});

await installPackages();
// Not before: it needs what has just been installed.
const { checkTarballs, pack } = await import("./pack.mjs");
await step(process.execPath, ["scripts/build.mjs"]);
try {
  if (repository) claimProvenance(repository);
  const tarballs = mkdtempSync(join(tmpdir(), "hone-release-"));
  try {
    const packed = await pack(tarballs);
    if ((await checkTarballs(packed)) > 0) throw new Error("A package is not fit to be published.");
    for (const file of packed) console.log(contents(file));
  } finally {
    rmSync(tarballs, { recursive: true, force: true });
  }
  if (dryRun) await step("npx", ["changeset", "status"]);
  // Changesets publishes with pnpm, which puts versions where the manifests say `workspace:`.
  else await step("npx", ["changeset", "publish"], { NPM_CONFIG_PROVENANCE: "true" });
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  restore();
}

function claimProvenance(name) {
  for (const folder of readdirSync(join(root, "packages"))) {
    const file = join(root, "packages", folder, "package.json");
    if (!existsSync(file)) continue;
    const text = readFileSync(file, "utf8");
    const manifest = JSON.parse(text);
    originals.set(file, text);
    manifest.repository = {
      type: "git",
      url: `git+https://github.com/${name}.git`,
      directory: `packages/${folder}`,
    };
    manifest.publishConfig.provenance = true;
    writeFileSync(file, `${JSON.stringify(manifest, null, 2)}\n`);
  }
}

/** One line: what is in a tarball. */
function contents(file) {
  const { stdout } = spawnSync("tar", ["-tzf", file], { encoding: "utf8" });
  const kilobytes = Math.round(readFileSync(file).length / 1000);
  return `${file.split("/").at(-1)}: ${stdout.trim().split("\n").length} files, ${kilobytes} kB`;
}

async function step(command, args, env = {}) {
  const { status } = await run(command, args, { cwd: root, env: { ...process.env, ...env } });
  if (status !== 0) throw new Error(`${args.join(" ")} failed.`);
}
