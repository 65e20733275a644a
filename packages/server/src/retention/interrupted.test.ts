import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { runCli } from "../testing/run-cli.ts";
import {
  adapterList,
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
} from "../testing/fixtures.ts";

const parent = mkdtempSync(join(tmpdir(), "hone-interrupted-"));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

async function trained(dataDir: string, steps: number): Promise<void> {
  const options = { engine: adapterList, trainer: fileTrainer(), keep: "all" as const };
  const engine = adapterList();
  const server = await openTestState(dataDir, { ...options, engine: () => engine });
  await server.call("PUT", "/v1/models/m", {});
  for (let step = 0; step < steps; step++) {
    const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
    const body = { clientToken: `t${step}`, op: { type: "train", groups } };
    await ended(server, (await server.call("POST", "/v1/models/m/operations", body)).json.id);
  }
  await server.state.close();
}

test.each(["retention.after-row", "retention.after-manifest"])(
  "a removal that was killed at %s is finished by the next pass",
  async (point) => {
    const dataDir = mkdtempSync(join(parent, "data-"));
    await trained(dataDir, 4);
    const gc = ["gc", "--json", "--keep", "3", "--data-dir", dataDir];
    const killed = await runCli(gc, { HONE_FAULT: `${point}:kill` });
    expect(killed.signal ?? killed.code).toBe("SIGKILL");

    // Whatever it left, every policy that the server would name is whole.
    const engine = adapterList();
    const server = await openTestState(dataDir, {
      engine: () => engine,
      trainer: fileTrainer(),
      keep: 3,
    });
    const { json } = await server.call("GET", "/v1/models/m/policies");
    for (const { step, removedAt } of json.data as { step: number; removedAt: number | null }[]) {
      const asked = server.state.router.leaseForModel("local", `m@${step}`);
      if (removedAt === null) (await asked).release();
      else await expect(asked).rejects.toMatchObject({ code: "policy_not_found" });
    }
    await server.state.close();
    const policies = join(dataDir, "models/m/policies");
    expect(readdirSync(policies).toSorted()).toEqual(["0", "2", "3", "4"]);
    expect(existsSync(join(policies, "2/optimizer.safetensors"))).toBe(false);
    expect(readFileSync(join(policies, "2/manifest.json"), "utf8")).not.toContain("optimizer");
    expect(readdirSync(join(policies, "2"))).not.toContain("manifest.json.next");
    const after = await runCli(["gc", "--dry-run", "--json", "--data-dir", dataDir]);
    expect(JSON.parse(after.out)).toMatchObject({ removed: [], bytes: 0 });
  },
);
