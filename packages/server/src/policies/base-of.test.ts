import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../testing/state-test.ts";

const plain = { name: "base", maxModelLen: 512, dtype: "float32" } as const;
const packed = { ...plain, quantize: "nf4" } as const;

test("adapters of a base in other bits are refused by name, and answer again on theirs", async ({
  server,
}) => {
  await server.train();
  await server.close();
  await server.open({ base: packed });

  const { json } = await server.call("PUT", "/v1/models/m", {});
  expect(json.error).toMatchObject({ code: "base_mismatch" });
  expect(json.error.message).toMatch(/base "base", but.*"base" in 4 bits \(--quantize nf4\)/);
  const submitted = await server.submit({ type: "publish" });
  expect(submitted.json.error).toMatchObject({ code: "base_mismatch" });
  await expect(server.state.router.leaseForModel("local", "m@1")).rejects.toMatchObject({
    code: "base_mismatch",
  });
  const listed = async () => (await server.state.router.listModels()).map(({ id }) => id);
  expect(await listed()).toEqual(["base"]);

  expect((await server.call("PUT", "/v1/models/small", {})).status).toBe(200);
  expect(await listed()).toEqual(["base", "small", "small@0"]);
  await server.close();
  await server.open({ base: plain });
  expect(await listed()).toEqual(["base", "m", "m@0", "m@1"]);
  expect((await server.call("PUT", "/v1/models/small", {})).json.error.message).toMatch(
    /in 4 bits.*but this server holds "base"\. Start the server as it was then/,
  );
  await server.train();
});

test("a policy's manifest says what its numbers were made with", async ({ server }) => {
  await server.train();
  await server.close();
  await server.open({ base: { ...packed, dtype: "bfloat16" } });
  await server.call("PUT", "/v1/models/small", {});
  const precision = async (policy: string): Promise<unknown> => {
    const folder = join(server.dataDir, "models", policy);
    return JSON.parse(await readFile(join(folder, "manifest.json"), "utf8")).precision;
  };
  expect(await precision("m/policies/0")).toEqual({ dtype: "float32" });
  expect(await precision("m/policies/1")).toEqual({ dtype: "float32" });
  expect(await precision("small/policies/0")).toEqual({ dtype: "bfloat16", quantize: "nf4" });
});
