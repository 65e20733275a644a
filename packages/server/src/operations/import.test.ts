import { cp, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { describe, expect } from "vitest";
import { ended, type Reply } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest.extend(
  "importPath",
  ({ server }) =>
    async (path: string): Promise<Reply["json"]> =>
      ended(server, (await server.submit({ type: "import", path })).json.id),
);

describe("import", () => {
  test("a folder in the data directory's imports becomes the next policy", async ({
    folder,
    engine,
    server,
    importPath,
  }) => {
    const source = join(folder, "imports/mine");
    await cp(join(folder, "models/m/policies/0"), source, { recursive: true });
    expect(await importPath(source)).toMatchObject({
      status: "succeeded",
      result: { type: "import", step: 1, policy: "m@1", checkpoint: "models/m/policies/1" },
    });
    expect(engine.names).toEqual(new Set(["m@0", "m@1"]));
    expect((await ended(server, await server.submitStep())).result.step).toBe(2);
  });

  test("nothing from elsewhere, no links out, no other shape, nothing the engine refuses", async ({
    folder,
    engine,
    server,
    importPath,
  }) => {
    const outside = join(folder, "models/m/policies/0");
    const imports = join(folder, "imports");
    await symlink(outside, join(imports, "link"));
    await cp(outside, join(imports, "linked-file"), { recursive: true });
    await rename(join(imports, "linked-file/adapter_model.safetensors"), join(imports, "gone"));
    await symlink(
      join(outside, "adapter_model.safetensors"),
      join(imports, "linked-file/adapter_model.safetensors"),
    );
    await cp(outside, join(imports, "wide"), { recursive: true });
    const config = { peft_type: "LORA", r: 64, lora_alpha: 32, target_modules: ["q_proj"] };
    await writeFile(join(imports, "wide/adapter_config.json"), JSON.stringify(config));
    for (const path of [
      outside,
      join(imports, "link"),
      join(imports, "linked-file"),
      join(imports, "wide"),
      join(imports, "none"),
      `${imports}/../models/m/policies/0`,
    ]) {
      expect(await importPath(path)).toMatchObject({
        status: "failed",
        error: { code: "bad_adapter", param: "op.path" },
      });
    }
    await cp(outside, join(imports, "good"), { recursive: true });
    engine.failNext = new HoneError("NaN", { code: "bad_adapter" });
    expect((await importPath(join(imports, "good"))).error.message).toContain("NaN");
    expect(await server.model()).toMatchObject({ learnt: 0, served: 0 });
  });
});
