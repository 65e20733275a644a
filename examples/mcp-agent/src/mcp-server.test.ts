import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { describe, expect, it, vi } from "vitest";
import { withServer, type McpServer } from "./mcp-server.ts";
import { filesystem, memory } from "./servers.ts";

const { signal } = new AbortController();
const program = fileURLToPath(new URL("odd-server.mjs", import.meta.url));
const odd = (how = "well"): McpServer => ({
  name: `odd-${how}`,
  start: (folder) => ({ command: process.execPath, args: [program, how, folder] }),
});

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
const foldersOf = (name: string) =>
  readdirSync(tmpdir()).filter((one) => one.startsWith(`mcp-${name}-`));

describe("the reference servers", () => {
  it("start each in a state of their own, and leave nothing", async () => {
    const add = { entities: [{ name: "Cleo", entityType: "person", observations: [] }] };
    const alone = { ...memory, name: "alone" };
    const [one, other] = await Promise.all([
      withServer(alone, signal, async ({ call, pid }) => {
        expect(await call("create_entities", add)).toMatchObject({ failed: false });
        return { pid, graph: (await call("read_graph", {})).text };
      }),
      withServer(alone, signal, async ({ call, pid }) => ({
        ...{ pid, graph: (await call("read_graph", {})).text },
      })),
    ]);
    expect(one.graph).toContain("Cleo");
    expect(other.graph).toContain("Ann");
    expect(other.graph).not.toContain("Cleo");
    expect([one.pid, other.pid].map(isRunning)).toEqual([false, false]);
    expect(foldersOf("alone")).toEqual([]);
  });

  it("show their folder by one name, and take it in arguments", async () => {
    await withServer(filesystem, signal, async ({ call, tools }) => {
      expect(tools.map(({ name }) => name)).toEqual(expect.arrayContaining(["read_text_file"]));
      expect(tools).toHaveLength(filesystem.only!.length);
      const found = await call("search_files", { path: ".", pattern: "**/plan.txt" });
      expect(found).toEqual({ text: "/sandbox/notes/plan.txt", failed: false });
      expect(await call("read_text_file", { path: found.text })).toMatchObject({
        ...{ text: expect.stringContaining("paint the door"), failed: false },
      });
      const outside = await call("read_text_file", { path: "/etc/hostname" });
      expect(outside).toMatchObject({ failed: true, text: expect.stringMatching(/^{"error":"/) });
      const hidden = await call("read_media_file", { path: "readme.txt" });
      expect(hidden).toEqual({
        text: '{"error":"There is no tool read_media_file."}',
        failed: true,
      });
      const invalid = await call("read_text_file", { file: 1 });
      expect(invalid).toMatchObject({ failed: true, text: expect.stringContaining("path") });
    });
  });
});

describe("a server that is odd", () => {
  it("is told apart: what is wrong with a call is its result", async () => {
    vi.stubEnv("SECRET_KEY", "of the trainer");
    await withServer(
      odd(),
      signal,
      async ({ call, instructions }) => {
        expect(instructions).toBe("All is in /sandbox.");
        // Without the keys of the environment, in the folder that the agent knows by another name.
        expect((await call("where", {})).text).toBe('{"cwd":"/sandbox","folder":"/sandbox"}');
        const echoed = await call("echo", { path: "/sandbox/a", list: [{ in: "/sandbox" }] });
        expect(JSON.parse(echoed.text)).toEqual({
          ...{ path: "/sandbox/a", list: [{ in: "/sandbox" }], is: true },
        });
        expect((await call("long", {})).text).toBe(
          `${"0123456789".repeat(10)}\n(9900 of 10000 characters are left out. Ask for less.)`,
        );
        expect((await call("picture", {})).text).toMatch(/^\(image, image\/png, 4 characters/);
        expect((await call("structured", {})).text).toBe('{"n":1}');
        expect(await call("fail", {})).toEqual({
          ...{ text: '{"error":"There is no such thing."}', failed: true },
        });
        expect(await call("wrong", {})).toMatchObject({ failed: true });
        const late = await call("hang", {});
        expect(late).toMatchObject({ failed: true, text: expect.stringMatching(/timed out/i) });
        expect(await call("structured", {})).toMatchObject({ failed: false });
      },
      // Its process starts within the limit too, on a busy machine as well.
      { timeoutMs: 8_000, resultCharacters: 100 },
    ).finally(() => vi.unstubAllEnvs());
  });

  it("ends the rollout where it ends itself, with its last words", async () => {
    const died = withServer(odd(), signal, ({ call }) => call("die", {}));
    await expect(died).rejects.toThrow(/odd-well ended while it ran die.*Out of luck\./);
    const failed = withServer(odd("fails"), signal, async () => {});
    await expect(failed).rejects.toThrow(/odd-fails does not start.*No configuration was found\./);
    const none = { ...odd(), start: () => ({ command: "no-such-program", args: [] }) };
    await expect(withServer(none, signal, async () => {})).rejects.toThrow(/no-such-program/);
    const silent = withServer(odd("silent"), signal, async () => {}, { timeoutMs: 300 });
    await expect(silent).rejects.toThrow(/odd-silent does not start/);
    const lacks = withServer({ ...odd(), only: ["echo", "fly"] }, signal, async () => {});
    await expect(lacks).rejects.toThrow(/has no tool fly\. Name in "only" some of: hang, die/);
  });

  it("is ended when the rollout is aborted, by force if it does not go", async () => {
    const stop = new AbortController();
    let pid = -1;
    const calling = withServer(odd("stubborn"), stop.signal, (running) => {
      pid = running.pid;
      const call = running.call("hang", {});
      stop.abort(new Error("Enough."));
      return call;
    });
    await expect(calling).rejects.toThrow("Enough.");
    await expect.poll(() => isRunning(pid)).toBe(false);
    expect(foldersOf("odd-stubborn")).toEqual([]);
    await expect(withServer(odd(), stop.signal, async () => {})).rejects.toThrow("Enough.");
  });
});
