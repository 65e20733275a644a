import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { probeCommand } from "./probe-command.ts";

it("names a task's own setting that is an option of the probe too", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-probe-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "task.mjs");
  const settings = "settings: { rollouts: 3 }, rollout: () => 1";
  await writeFile(file, `export default { train: [1], heldOut: [2, 3], ${settings} };\n`);
  await expect(probeCommand(file, [], new AbortController().signal)).rejects.toMatchObject({
    ...{ code: "invalid_config", param: "settings.rollouts" },
    message: expect.stringContaining("probeTask"),
  });
});
