import { expect, it } from "vitest";
import { memory } from "./servers.ts";
import { withSharedServer } from "./shared-server.ts";

const { signal } = new AbortController();
const pidOf = (server: typeof memory) =>
  withSharedServer(server, signal, ({ pid }) => Promise.resolve(pid));
const lives = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

it("lends one process to all, another one after a failure, and ends what nobody uses", async () => {
  const server = { ...memory };
  const [one, other] = await Promise.all([pidOf(server), pidOf(server)]);
  expect(other).toBe(one);
  const failing = withSharedServer(server, signal, ({ pid }) =>
    Promise.reject(new Error(`${pid}`)),
  );
  await expect(failing).rejects.toThrow(String(one));
  const next = await pidOf(server);
  expect(next).not.toBe(one);
  await expect.poll(() => [one, next].some(lives), { timeout: 20_000 }).toBe(false);
});

it("does not lend to who has been aborted", async () => {
  const aborted = AbortSignal.abort(new Error("over"));
  const lent = withSharedServer(memory, aborted, () => Promise.resolve(1));
  await expect(lent).rejects.toThrow("over");
});
