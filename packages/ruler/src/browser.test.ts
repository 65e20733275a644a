import { fileURLToPath } from "node:url";
import { createContext, runInContext } from "node:vm";
import { build } from "esbuild";
import { expect, it } from "vitest";
import * as steps from "./testing/judge-steps.ts";
import { ScriptedJudge } from "./testing/scripted-judge.ts";
import { groupOf } from "./testing/group.test-support.ts";

/** One file for a browser, as a bundler makes it: an import of node:* would fail here. */
async function bundle(code: string): Promise<string> {
  const result = await build({
    stdin: { contents: code, resolveDir: fileURLToPath(new URL(".", import.meta.url)) },
    bundle: true,
    write: false,
    format: "iife",
    globalName: "bundled",
    platform: "browser",
    conditions: ["@hone/source"],
    logLevel: "silent",
  });
  return result.outputFiles[0]?.text ?? "";
}

it("the main entry and the rewards run where there is no Node", async () => {
  const text = await bundle(
    'export { rulerScoreGroup } from "./index.ts"; export * as rewards from "./rewards/index.ts";',
  );
  expect(text.length).toBeGreaterThan(10_000);
  const judge = await ScriptedJudge.start({
    otherwise: steps.score(({ finalText }) => Number.parseFloat(finalText)),
  });
  try {
    // What a worker has: the web's globals, and no process, no require, no Buffer.
    // Pages often forbid to make code of text; so does this.
    const worker = createContext({}, { codeGeneration: { strings: false, wasm: false } });
    const own = new Set(runInContext("Object.getOwnPropertyNames(globalThis)", worker) as string[]);
    const ofNode = new Set(["process", "Buffer", "global", "setImmediate", "clearImmediate"]);
    for (const name of Object.getOwnPropertyNames(globalThis)) {
      if (own.has(name) || ofNode.has(name) || name.startsWith("__")) continue;
      worker[name] = (globalThis as Record<string, unknown>)[name];
    }
    runInContext(text, worker);
    worker["group"] = groupOf("0.1", "0.9");
    worker["judge"] = judge.endpoint;
    const rewards: unknown = await runInContext(
      "bundled.rulerScoreGroup(group, judge).then((scored) => scored.trajectories.map(({ reward }) => reward))",
      worker,
    );
    expect([...(rewards as number[])]).toEqual([0.1, 0.9]);
    const code = "bundled.rewards.parseCode('x = [1', 'python').then(({ ok }) => ok)";
    expect(await runInContext(code, worker)).toBe(false);
    const match = `const fn = bundled.rewards.jsonMatch({ schema: { items: { const: { a: 1 } } } });
      const given = (content) => ({ messages: [{ role: "assistant", content }] });
      [fn(given('[{"a": 1}]')), fn(given('[{"a": 2}]'))].join()`;
    expect(runInContext(match, worker)).toBe("1,0");
    expect(runInContext("typeof process + typeof Buffer", worker)).toBe("undefinedundefined");
  } finally {
    await judge.close();
  }
});
