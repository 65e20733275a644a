import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { ended } from "../testing/fixtures.ts";
import { test } from "../testing/state-test.ts";

const plain = { name: "base", maxModelLen: 512, vocabSize: 1000, dtype: "float32" } as const;
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

test.for([packed, { ...plain, name: "other" }])(
  "an operation that an earlier server left is not done over the base %j",
  async (base, { server, trainer, engine }) => {
    trainer.before.push(
      (signal) =>
        new Promise((_, reject) => {
          const abort = () => reject(signal.reason as Error);
          // The server may have closed before the trainer was asked.
          if (signal.aborted) abort();
          else signal.addEventListener("abort", abort);
        }),
    );
    const ids = [await server.submitStep(), await server.submitStep()];
    await expect.poll(async () => (await statusOf(ids[0]!)).status).toBe("running");
    await server.close();
    await server.open({ base });
    for (const id of ids) {
      const { status, error, result } = await ended(server, id);
      expect({ status, code: error?.code, result }).toEqual({
        ...{ status: "failed", code: "base_mismatch", result: null },
      });
    }
    expect(trainer.trained).toHaveLength(0);
    expect(await server.model()).toMatchObject({ learnt: 0, operations: [] });
    expect([...engine.names]).not.toContain("m@1");
    await server.close();
    await server.open({ base: plain });
    await server.train();

    async function statusOf(id: string) {
      return (await server.call("GET", `/v1/operations/${id}`)).json;
    }
  },
);
