import { describe, expect, it } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import { codeParses } from "./code-reward.ts";
import type { CodeOptions } from "./code-reward.ts";

describe("code", () => {
  const check = async (options: CodeOptions, text: string) =>
    codeParses(options)(trajectory(text), { group: group([]), index: 0 });

  it("is parsed, from the last block of its language", async () => {
    const text = "First:\n```ts\nconst x: = 1\n```\nThen:\n```ts\nconst x: number = 1;\n```\n";
    expect(await check({ language: "typescript" }, text)).toBe(1);
    expect(await check({ language: "typescript" }, `${text}\n\`\`\`ts\nconst x: = 1\n\`\`\``)).toBe(
      0,
    );
    expect(await check({ language: "python" }, "```python\ndef f(x):\n    return x\n```")).toBe(1);
    expect(await check({ language: "python" }, "```python\ndef f(x)\n    return x\n```")).toBe(0);
    expect(await check({ language: "python" }, "I cannot do that, sorry.")).toBe(0);
    expect(await check({ language: "tsx" }, "const a = <b c={1} />;")).toBe(1);
    expect(await check({ language: "javascript" }, "const a: number = 1;")).toBe(0);
    expect(await check({ language: "typescript" }, "")).toBe(0);
  });

  it.each([
    ["import fs from 'fs'", 0],
    ["import { rm } from 'node:fs/promises'", 0],
    ["export * from 'fs'", 0],
    ["const f = require('fs')", 0],
    ["await import('fs')", 0],
    ["await import(name)", 0],
    ["import f = require('fs')", 0],
    ["import type { A } from './fs-like.ts'", 1],
    ["const fs = 'import fs from fs'; // import 'fs'", 1],
  ])("TypeScript without fs: %s", async (code, expected) => {
    expect(await check({ language: "typescript", forbiddenImports: ["fs"] }, code)).toBe(expected);
  });

  it.each([
    ["import os", 0],
    ["import os.path as p", 0],
    ["import re, os", 0],
    ["from os import system", 0],
    ["def f():\n    from os import path", 0],
    ["__import__('os')", 0],
    ["__import__('o' + 's')", 0],
    ["import importlib\nimportlib.import_module('os')", 0],
    ["import osmium", 1],
    ["x = 'import os'  # import os", 1],
  ])("Python without os: %s", async (code, expected) => {
    expect(await check({ language: "python", forbiddenImports: ["os"] }, code)).toBe(expected);
  });

  it("is not what stands in a block of another language, nor half a block", async () => {
    const javascript = async (text: string) => {
      const options = { language: "javascript", forbiddenImports: ["fs"] } as const;
      expect(await check({ ...options, language: "typescript" }, text)).toBe(0);
      return check(options, text);
    };
    // All of these are tagged templates to a parser that gets the whole answer.
    expect(await javascript("```python\nnot code ((\n```")).toBe(0);
    expect(await javascript("```node\nimport fs from 'fs'\n```")).toBe(0);
    expect(await javascript("`I cannot do that`")).toBe(0);
    expect(await javascript("```I cannot do that```")).toBe(0);
    expect(await javascript("```ts\nx = 1")).toBe(0);
    expect(await javascript("~~~\nx = 1")).toBe(0);
    const broken = '```ts title="a b"\nconst x: = 1\n```';
    expect(await check({ language: "typescript" }, broken)).toBe(0);
  });

  it.each<[string, CodeOptions["language"]]>([
    ['ts title="a b"', "typescript"],
    ["ts{1,3}", "typescript"],
    ["TS:src/a.ts", "typescript"],
    ["cts", "typescript"],
    ["typescriptreact", "tsx"],
    ["node", "javascript"],
    ["mjs", "javascript"],
    ["cjs", "javascript"],
    ["jsx showLineNumbers", "javascript"],
    ["{.python}", "python"],
    ["py3", "python"],
    ["python3.12", "python"],
    ["Python-3.11", "python"],
    ["ipython", "python"],
    ["ipython3", "python"],
    ["typescript@5", "typescript"],
    ["es2022", "javascript"],
    ["", "python"],
  ])("is found behind ```%s", async (info, language) => {
    const block = (code: string) => `Here:\n\`\`\`${info}\n${code}\n\`\`\`\n`;
    expect(await check({ language }, block("x = 1"))).toBe(1);
    expect(await check({ language }, block("x = = 1"))).toBe(0);
  });

  it("that is named comes before what is not: output, say", async () => {
    const text = "```python\nimport os\nprint(1)\n```\nprints\n```\nx = 1\n```";
    expect(await check({ language: "python" }, text)).toBe(1);
    expect(await check({ language: "python", forbiddenImports: ["os"] }, text)).toBe(0);
  });

  it.each([
    "Sorry",
    "Sorry, no",
    "N/A",
    "No!",
    "Yes (probably)",
    "Answer: 42",
    "let go",
    "new York",
  ])("is not %j, though it parses", async (words) => {
    for (const language of ["typescript", "tsx", "javascript", "python"] as const) {
      expect(await check({ language }, words)).toBe(0);
      expect(await check({ language }, `\`\`\`\n${words}\n\`\`\``)).toBe(0);
    }
  });

  it("may be one expression where it is said to be code", async () => {
    expect(await check({ language: "typescript" }, "```ts\n/^a/\n```")).toBe(1);
    expect(await check({ language: "python" }, "```python\na or b\n```")).toBe(1);
    expect(await check({ language: "python" }, "print('a')")).toBe(1);
    expect(await check({ language: "javascript" }, "console.log(1)")).toBe(1);
    expect(await check({ language: "javascript", extract: () => "a" }, "")).toBe(1);
  });

  it.each([
    ["require?.('fs')", 0],
    ["require!('fs')", 0],
    ["(require as any)('fs')", 0],
    ["const r = require; r('fs')", 0],
    ["module.require('fs')", 0],
    ["module['require']('fs')", 0],
    ["const { require: r } = module; r('fs')", 0],
    ["process.getBuiltinModule('fs')", 0],
    ["process[`getBuiltinModule`]('fs')", 0],
    ["const { getBuiltinModule: g } = process; g('fs')", 0],
    ["import { createRequire as c } from 'module'; c(import.meta.url)('fs')", 0],
    ["import m from 'module'; m.createRequire(import.meta.url)('fs')", 0],
    ["const p = require('path'); if (require.main === module) p.join('a')", 1],
    ["const p = require?.('path'); require.resolve('fs')", 1],
    ["const a = { require: true }; f(a.required); class B { require() {} }", 1],
  ])("TypeScript without fs, by other ways: %s", async (code, expected) => {
    expect(await check({ language: "typescript", forbiddenImports: ["fs"] }, code)).toBe(expected);
    expect(await check({ language: "typescript" }, code)).toBe(1);
  });

  it.each([
    ["f = __import__\nf('os')", 0],
    ["from importlib import import_module as i\ni('os')", 0],
    ["import importlib as i\ni.reload(x)", 0],
    ["import importlib.util", 0],
    ["builtins.__import__('os')", 0],
    ["getattr(builtins, '__import__')('os')", 0],
    ["__builtins__['__import__']('os')", 0],
    ["def import_modules():\n    return 'to import importlib'", 1],
  ])("Python without os, by other ways: %s", async (code, expected) => {
    expect(await check({ language: "python", forbiddenImports: ["os"] }, code)).toBe(expected);
    expect(await check({ language: "python" }, code)).toBe(1);
  });

  it("that is nested without end is no code, and is not run", async () => {
    for (const language of ["typescript", "python"] as const) {
      expect(await check({ language }, "(".repeat(100_000))).toBe(0);
      expect(await check({ language }, "x = ".repeat(80_000))).toBe(0);
    }
    expect(
      await check({ language: "typescript" }, "globalThis.canary = 1; throw new Error()"),
    ).toBe(1);
    expect("canary" in globalThis).toBe(false);
  });

  it.each([
    ["- First:\n\n      ```python\n      if x:\n          y()\n      ```", "far to the right"],
    ["1. First:\n\t```python\n\tif x:\n\t    y()\n\t```", "a tab"],
    ["* ```python\n  if x:\n      y()\n  ```", "behind the mark"],
    ["- a\n  - b\n\n    ```python\n    if x:\n        y()\n    ```\n", "a list in a list"],
  ])("in an item of a list is code: %j (%s)", async (text) => {
    expect(await check({ language: "python" }, text)).toBe(1);
    expect(await check({ language: "python" }, text.replace("y()", "y("))).toBe(0);
  });

  it("that is indented as Markdown indents code is no fence outside of a list", async () => {
    const text = "Write:\n\n    ```python\n    x = 1\n    ```\n";
    expect(await check({ language: "python" }, `- list\n\nEnd.\n\n${text}`)).toBe(0);
  });

  it.each([
    ["if x:\n\ty\n        z", 0],
    ["if x:\n        y\n\tz", 0],
    ["if x:\n\tif y:\n\t    z\n\telse:\n\t    w", 1],
    ["if x:\n    a = [\n\t1,\n  2]\n    b", 1],
    ["if x:\n    a = '''\n\tq\n'''\n    b", 1],
    ["if x:\n    a = 1 + \\\n\t2\n    b", 1],
    ["def f():\n\treturn 1\n\ndef g():\n    return 2", 1],
    ["try:\n    a()", 0],
    ["for 1 in x: pass", 0],
    ["x = 0777", 0],
    ["x = 1_000_", 0],
    ["x = 1e", 0],
    ["x = [0xFF, 0b1, 0o7, 1_0.5e-3, 1j, 00, 1.e5, .5, 1..real, 1 if y else 2]", 1],
  ])("is what Python itself takes: %j", async (code, expected) => {
    expect(await check({ language: "python" }, `\`\`\`python\n${code}\n\`\`\``)).toBe(expected);
  });

  it("is parsed off the loop, and given up where it takes too long", async () => {
    // A parser of TypeScript tries each of these in two ways, within one another.
    const slow = `${"<T>(".repeat(24)}${")".repeat(24)}`;
    let ticks = 0;
    const timer = setInterval(() => void (ticks += 1), 20);
    const began = performance.now();
    expect(await check({ language: "typescript" }, `\`\`\`ts\n${slow}\n\`\`\``)).toBe(0);
    const took = performance.now() - began;
    clearInterval(timer);
    expect(took).toBeLessThan(60_000);
    // The loop went on meanwhile.
    expect(ticks).toBeGreaterThan(took / 200);
    expect(await check({ language: "typescript" }, "```ts\nconst x = 1\n```")).toBe(1);
  });
});
