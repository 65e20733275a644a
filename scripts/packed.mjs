// The packages as a user gets them: packs what `npm run build` has made, checks the tarballs with publint and
// attw, installs them into an empty project and trains a step there (test/packed/packed.test.ts). Arguments go to
// vitest. `npm run packed` builds first.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { root } from "./install.mjs";
import { checkTarballs, pack } from "./pack.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";

const folder = mkdtempSync(join(tmpdir(), "hone-tarballs-"));
const remove = () => rmSync(folder, { recursive: true, force: true });
onInterrupt(() => {
  void endAll().then(() => {
    remove();
    process.exit(130);
  });
});
let failed = 1;
try {
  failed = await checkTarballs(await pack(folder));
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  const { status } = await run(
    process.execPath,
    [vitest, "run", ...process.argv.slice(2), "test/packed/packed.test.ts"],
    { cwd: root, env: { ...process.env, HONE_TARBALLS: folder } },
  );
  if (status !== 0) failed++;
} finally {
  remove();
}
process.exit(failed > 0 ? 1 : 0);
