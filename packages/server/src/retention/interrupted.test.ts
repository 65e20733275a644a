import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { runCli } from "../testing/run-cli.ts";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest.extend("options", { keep: "all" as const });

test.for(["retention.after-row", "retention.after-manifest"])(
  "a removal that was killed at %s is finished by the next pass",
  async (point, { folder: dataDir, engine, server }) => {
    await server.train(4);
    await server.close();
    const gc = ["gc", "--json", "--keep", "3", "--data-dir", dataDir];
    const killed = await runCli(gc, { HONE_FAULT: `${point}:kill` });
    expect(killed.signal ?? killed.code).toBe("SIGKILL");

    // Whatever it left, every policy that the server would name is whole.
    engine.names.clear();
    await server.open({ keep: 3 });
    const { json } = await server.call("GET", "/v1/models/m/policies");
    for (const { step, removedAt } of json.data as { step: number; removedAt: number | null }[]) {
      const asked = server.state.router.leaseForModel("local", `m@${step}`);
      if (removedAt === null) (await asked).release();
      else await expect(asked).rejects.toMatchObject({ code: "policy_not_found" });
    }
    await server.close();
    const policies = join(dataDir, "models/m/policies");
    expect(readdirSync(policies).toSorted()).toEqual(["0", "2", "3", "4"]);
    expect(existsSync(join(policies, "2/optimizer.safetensors"))).toBe(false);
    expect(readFileSync(join(policies, "2/manifest.json"), "utf8")).not.toContain("optimizer");
    expect(readdirSync(join(policies, "2"))).not.toContain("manifest.json.next");
    const after = await runCli(["gc", "--dry-run", "--json", "--data-dir", dataDir]);
    expect(JSON.parse(after.out)).toMatchObject({ removed: [], bytes: 0 });
  },
);
