import { expect } from "vitest";
import { ended } from "../../testing/fixtures.ts";
import { test } from "../../testing/state-test.ts";

const good = { tokens: [1, 2, 3], targets: [2, 3, 999] };

test.for([
  ["forward", "tokens", 0, [1000, 2, 3]],
  ["forward", "targets", 2, [2, 3, 1000]],
  ["forward_backward", "tokens", 1, [1, 2 ** 31 - 1, 1000]],
  ["forward_backward", "targets", 1, [2, 5000, 4]],
] as const)(
  "%s refuses an id of %s beyond the vocabulary before anything is logged",
  async ([type, name, at, ids], { server, trainer }) => {
    let asked = 0;
    trainer.before.push(async () => void asked++);
    const bad = { ...good, [name]: ids };
    const sent = { clientToken: "call-1" };
    const { status, json } = await server.submit({ type, data: [good, bad] }, sent);
    expect(status).toBe(400);
    expect(json.error).toMatchObject({
      code: "invalid_request",
      param: `op.data[1].${name}[${at}]`,
      message:
        `data[1].${name}[${at}] is ${ids[at]}, and token ids of this base are 0 to 999. ` +
        "Encode it with the base's own tokenizer.",
    });
    expect((await server.call("GET", "/v1/models/m/operations")).json.data).toEqual([]);
    expect(asked).toBe(0);

    // The token names nothing yet; the highest id is one of the base's.
    const mended = await server.submit({ type, data: [good, good] }, sent);
    expect(await ended(server, mended.json.id)).toMatchObject({ status: "succeeded" });
    expect(asked).toBe(1);
  },
);

test("a sequence that is longer than the context is refused by its place", async ({ server }) => {
  const long = Array.from({ length: 513 }, () => 1);
  const data = [good, { tokens: long, targets: long }];
  const { status, json } = await server.submit({ type: "forward", data });
  expect([status, json.error.param]).toEqual([400, "op.data[1].tokens"]);
});
