import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-fault-"));
  vi.resetModules();
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

async function armed(spec: string): Promise<typeof import("./fault.ts")> {
  vi.stubEnv("HONE_FAULT", spec);
  vi.stubEnv("HONE_FAULT_MARK", join(folder, "mark"));
  vi.resetModules();
  return await import("./fault.ts");
}

test("a point that is not named does nothing, nor does any without the variable", async () => {
  const { fault, faultPoints } = await armed("");
  for (const point of faultPoints) fault(point);
  const other = await armed("checkpoint.before-rename:kill");
  other.fault("checkpoint.after-rename");
  expect(existsSync(join(folder, "mark"))).toBe(false);
});

test("it strikes at the passing that is named, once, also in a successor", async () => {
  const { fault } = await armed("checkpoint.before-manifest@2:enospc");
  fault("checkpoint.before-manifest");
  expect(existsSync(join(folder, "mark"))).toBe(false);
  expect(() => fault("checkpoint.before-manifest")).toThrow(/ENOSPC/);
  expect(existsSync(join(folder, "mark"))).toBe(true);
  fault("checkpoint.before-manifest");
  const successor = await armed("checkpoint.before-manifest:enospc");
  successor.fault("checkpoint.before-manifest");
});

test.each(["checkpoint", "no.such-point:kill", "checkpoint.before-rename:explode"])(
  "%s is refused",
  async (spec) => {
    await expect(armed(spec)).rejects.toThrow(/HONE_FAULT is/);
  },
);
