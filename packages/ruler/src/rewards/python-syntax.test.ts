import { spawnSync } from "node:child_process";
import { homedir } from "node:os";
import { describe, expect, it } from "vitest";
import { parsePython } from "./python-syntax.ts";

/** What `compile()` of Python 3.11 to 3.13 refuses, and a parser for a syntax tree alone lets pass. */
const refused = [
  ...["return 1", "class A: return 1", "def f():\n    class A: return 1", "yield 1", "x = yield"],
  ...["yield from x", "class A: yield 1", "[(yield) for x in y]", "def f(x=(yield)): pass"],
  ...["def f(): [(yield x) for x in y]", "async def f(): yield from a"],
  ...["async def f():\n    yield 1\n    return 2", "async def f():\n    return 2\n    yield 1"],
  ...["await f()", "def f():\n    await g()", "async def f():\n    def g(): await x"],
  ...["async def f():\n    lambda: await x", "f'{await x}'", "async with a: pass"],
  ...["def f():\n    async for a in b: pass", "[x async for x in y]"],
  ...["def f(): [x async for x in y]", "async def f(x=await y): pass"],
  ...["break", "continue", "if 1: break", "while 1:\n    def f(): break"],
  ...["while 1: pass\nelse: break", "for x in y:\n    class B: continue"],
  ...["def f(a, a): pass", "def f(a, *a): pass", "def f(a, *, a): pass", "lambda a, **a: 1"],
  ...["async def f(a, /, a): pass", "f(a=1, a=2)", "class A(a=1, a=2): pass"],
  ...["nonlocal x", "def f():\n    nonlocal x", "class A:\n    nonlocal x"],
  ...["def f(a):\n    nonlocal a", "def f(a):\n    global a", "x = 1\nglobal x"],
  ...["def f():\n    print(x)\n    global x", "def f():\n    def x(): pass\n    global x"],
  ...["def f():\n    x = 1\n    class A:\n        nonlocal y", "x: int = 1\nglobal x"],
  ...["*a", "(*a)", "*a = b", "x = *a", "*a, *b = c", "[*a, *b] = c", "for *a in b: pass"],
  ...["del (x, *y)", "f'{*a}'", "(*x for x in y)", "for f() in x: pass", "for a + b in x: pass"],
  ...["[x for f() in y]", "(a.b := 1)", "(a[0] := 1)", "((a, b) := 1)", "__debug__ = 1"],
  ...["a := 1", "a := 1, 2", "x = a := b", "assert a := b", "lambda: a := b", "if a: b := 1"],
  ...["def f():\n    from a import *", "from __future__ import nothing"],
  ...["import a\nfrom __future__ import annotations"],
  ...["def f():\n    from __future__ import annotations"],
  ...["f'}'", "f'a}'", "f'{a}}'", "f'{{}'", "f'{{}}}'", "f'{a:}}'", "rf'}'", "f'''}'''"],
  ...["'\\x1'", "'\\xzz'", "b'\\x1'", "f'\\x1'", "'\\u12'", "'\\U00110000'", "'\\N'", "'\\N{}'"],
  ...[
    "b'\u00E9'",
    "rb'\u00E9'",
    "'a' b'b'",
    "f'a' b'b'",
    "('a'\n b'b')",
    "x = r'\\'",
    "x = r'a\\'",
  ],
  ...["# \0", "'\0'"],
];
const accepted = [
  ...["def f():\n    return 1\n    yield", "async def f():\n    yield 1\n    return"],
  ...["lambda: (yield)", "def f(): return (yield)", "x = (x async for x in y)"],
  ...["async def f(): return [await x async for x in y]", "async def f(): [await x for x in y]"],
  ...["async def f():\n    async with a as b, c: await d", "def f(): (x async for x in y)"],
  ...[
    "for x in y:\n    if x: break\n    else: continue",
    "while 1:\n    try: x\n    finally: break",
  ],
  ...["while 1:\n    with a: break", "while 1:\n    match x:\n        case 1: break"],
  ...["def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2"],
  ...["def f():\n    def g():\n        nonlocal x\n    x = 1", "import x\nglobal x"],
  ...["def f(x):\n    def g():\n        def h():\n            nonlocal x"],
  ...[
    "def f():\n    import x\n    def g():\n        nonlocal x",
    "def f():\n    global x\n    x = 1",
  ],
  ...["def f():\n    [x for x in y]\n    global x", "class A:\n    global x\n    x = 1"],
  ...[
    "*a, b",
    "*a, = b",
    "a, *b = c",
    "for a, *b in c: pass",
    "[*a, *b]",
    "f(*a, *b)",
    "x = *a, b",
  ],
  ...["for a.b in c: pass", "for a[0] in c: pass", "del (a, b.c), d[0]", "{*a, b}", "() = x"],
  ...["(a := 1)", "f(a := 1)", "x[a := 1]", "if a := b: pass", "while a := b: pass"],
  ...["if x:\n    pass\nelif a := b: pass", "@x := y\ndef f(): pass", "[y := x, y]"],
  ...["match x:\n    case 1 if y := 2: pass", "lambda: (a := b)", "f'{a:=3}'"],
  ...[
    "'''doc'''\nfrom __future__ import annotations",
    "from __future__ import division\nimport os",
  ],
  ...["f'{{}}'", "f'{{{a}}}'", "f'{a:{b}}'", "f'{ {1: 2}[1] }'", "f'\\N{BULLET}'", "rf'\\x1{a}'"],
  ...["r'\\x1'", "rb'\\x1'", "'\\x41\\u0041\\U0001F600\\101'", "b'\\u12'", "'\\N{BULLET}'"],
  ...["'a' 'b'", "b'a' rb'b'", "'a'; b'b'", "x = ('a',\n b'b')", "f(b'a', 'b')", "'a'\nb'b'"],
  ...["'a' in b'b'", "x = 'a\\\nb'", "'''\na}'''", "'\u00E9'", "x = '}'", "f(a=1, **b, **c)"],
];

describe("Python", () => {
  it.each(refused)("that the compiler refuses is none: %j", (code) => {
    expect(parsePython(code).ok).toBe(false);
  });

  it.each(accepted)("that the compiler takes is some: %j", (code) => {
    expect(parsePython(code)).toMatchObject({ ok: true });
  });

  it.runIf(process.env["HONE_PYTHON"])("is what Python's own compiler says", () => {
    const program =
      "import json,sys\ndef f(c):\n try:\n  compile(c,'c','exec',dont_inherit=True)\n  return True\n except (SyntaxError,ValueError): return False\nprint(json.dumps([f(c) for c in json.load(sys.stdin)]))";
    const interpreter = (process.env["HONE_PYTHON"] ?? "").replace(/^~(?=\/)/, homedir());
    const all = [...refused, ...accepted];
    const { stdout } = spawnSync(interpreter, ["-W", "ignore", "-c", program], {
      input: JSON.stringify(all),
      encoding: "utf8",
    });
    const verdicts = JSON.parse(stdout) as boolean[];
    const own = all.map((code) => parsePython(code).ok);
    expect(all.filter((_code, i) => own[i] !== verdicts[i])).toEqual([]);
  });
});
