import { expect, it } from "vitest";
import { createFutures, mostKept, type Answer } from "./futures.ts";

it("keeps answers for those who ask again, and no more than so many", async () => {
  const futures = createFutures();
  const never = new AbortController().signal;
  let answer = (_late: Answer): void => undefined;
  futures.begin("key", "open", () => new Promise((resolve) => void (answer = resolve)));
  for (let nth = 0; nth <= mostKept; nth++) {
    futures.begin("key", `sample ${nth}`, async () => ({ json: { nth } }));
    await futures.wait("key", `sample ${nth}`, never);
  }
  await expect(futures.wait("key", "sample 0", never)).rejects.toThrow(
    'There is no request "sample 0" any more',
  );
  for (const nth of [1, mostKept])
    expect(await futures.wait("key", `sample ${nth}`, never)).toEqual({ json: { nth } });
  // What nobody has answered yet is not among them.
  answer({ json: { late: true } });
  expect(await futures.wait("key", "open", never)).toEqual({ json: { late: true } });
});
