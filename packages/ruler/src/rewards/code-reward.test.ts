import { describe, expect, it } from "vitest";
import { group, trajectory } from "../group.test-support.ts";
import { codeParses } from "./code-reward.ts";
import type { CodeOptions } from "./code-reward.ts";

describe("code", () => {
  const check = (options: CodeOptions, text: string) =>
    codeParses(options)(trajectory(text), { group: group([]), index: 0 });

  it("is parsed, from the last block of its language", () => {
    const text = "First:\n```ts\nconst x: = 1\n```\nThen:\n```ts\nconst x: number = 1;\n```\n";
    expect(check({ language: "typescript" }, text)).toBe(1);
    expect(check({ language: "typescript" }, `${text}\n\`\`\`ts\nconst x: = 1\n\`\`\``)).toBe(0);
    expect(check({ language: "python" }, "```python\ndef f(x):\n    return x\n```")).toBe(1);
    expect(check({ language: "python" }, "```python\ndef f(x)\n    return x\n```")).toBe(0);
    expect(check({ language: "python" }, "I cannot do that, sorry.")).toBe(0);
    expect(check({ language: "tsx" }, "const a = <b c={1} />;")).toBe(1);
    expect(check({ language: "javascript" }, "const a: number = 1;")).toBe(0);
    expect(check({ language: "typescript" }, "")).toBe(0);
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
  ])("TypeScript without fs: %s", (code, expected) => {
    expect(check({ language: "typescript", forbiddenImports: ["fs"] }, code)).toBe(expected);
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
  ])("Python without os: %s", (code, expected) => {
    expect(check({ language: "python", forbiddenImports: ["os"] }, code)).toBe(expected);
  });

  it("is not what stands in a block of another language, nor half a block", () => {
    const javascript = (text: string) => {
      const options = { language: "javascript", forbiddenImports: ["fs"] } as const;
      expect(check({ ...options, language: "typescript" }, text)).toBe(0);
      return check(options, text);
    };
    // All of these are tagged templates to a parser that gets the whole answer.
    expect(javascript("```python\nnot code ((\n```")).toBe(0);
    expect(javascript("```node\nimport fs from 'fs'\n```")).toBe(0);
    expect(javascript("`I cannot do that`")).toBe(0);
    expect(javascript("```I cannot do that```")).toBe(0);
    expect(javascript("```ts\nx = 1")).toBe(0);
    expect(javascript("~~~\nx = 1")).toBe(0);
    const broken = '```ts title="a b"\nconst x: = 1\n```';
    expect(check({ language: "typescript" }, broken)).toBe(0);
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
    ["", "python"],
  ])("is found behind ```%s", (info, language) => {
    const block = (code: string) => `Here:\n\`\`\`${info}\n${code}\n\`\`\`\n`;
    expect(check({ language }, block("x = 1"))).toBe(1);
    expect(check({ language }, block("x = = 1"))).toBe(0);
  });

  it("that is named comes before what is not: output, say", () => {
    const text = "```python\nimport os\nprint(1)\n```\nprints\n```\nx = 1\n```";
    expect(check({ language: "python" }, text)).toBe(1);
    expect(check({ language: "python", forbiddenImports: ["os"] }, text)).toBe(0);
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
  ])("is not %j, though it parses", (words) => {
    for (const language of ["typescript", "tsx", "javascript", "python"] as const) {
      expect(check({ language }, words)).toBe(0);
      expect(check({ language }, `\`\`\`\n${words}\n\`\`\``)).toBe(0);
    }
  });

  it("may be one expression where it is said to be code", () => {
    expect(check({ language: "typescript" }, "```ts\n/^a/\n```")).toBe(1);
    expect(check({ language: "python" }, "```python\na or b\n```")).toBe(1);
    expect(check({ language: "python" }, "print('a')")).toBe(1);
    expect(check({ language: "javascript" }, "console.log(1)")).toBe(1);
    expect(check({ language: "javascript", extract: () => "a" }, "")).toBe(1);
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
  ])("TypeScript without fs, by other ways: %s", (code, expected) => {
    expect(check({ language: "typescript", forbiddenImports: ["fs"] }, code)).toBe(expected);
    expect(check({ language: "typescript" }, code)).toBe(1);
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
  ])("Python without os, by other ways: %s", (code, expected) => {
    expect(check({ language: "python", forbiddenImports: ["os"] }, code)).toBe(expected);
    expect(check({ language: "python" }, code)).toBe(1);
  });

  it("that is nested without end is no code, and is not run", () => {
    for (const language of ["typescript", "python"] as const) {
      expect(check({ language }, "(".repeat(100_000))).toBe(0);
      expect(check({ language }, "x = ".repeat(80_000))).toBe(0);
    }
    expect(check({ language: "typescript" }, "globalThis.canary = 1; throw new Error()")).toBe(1);
    expect("canary" in globalThis).toBe(false);
  });
});
