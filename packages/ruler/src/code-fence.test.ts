import { expect, it } from "vitest";
import { readAnswer } from "./judging/answer.ts";
import { codeBlocks } from "./code-fence.ts";
import { fencedCode, taggedAnswer } from "./rewards/completion-text.ts";

it("finds blocks as Markdown does", () => {
  const text = [
    "```ts title='a'",
    "~~~",
    "```x",
    "```",
    "A `word`, and ```more words``` in a line.",
    "```more words```",
    "   ~~~~ {.python}",
    "~~~",
    "x",
    "   ~~~~~",
    "    ```js",
    "```",
    "",
    "```  ",
    "```py",
    "never closed",
  ].join("\n");
  expect(codeBlocks(text)).toEqual([
    { language: "ts", code: "~~~\n```x" },
    { language: "python", code: "~~~\nx" },
    { language: "", code: "" },
  ]);
  expect(codeBlocks("1. First:\n   ```python\n   if x:\n     y()\n z()\n   ```")).toEqual([
    { language: "python", code: "if x:\n  y()\nz()" },
  ]);
  expect(fencedCode(text)).toBe("");
  expect(fencedCode(text, ["ts"])).toBe("~~~\n```x");
  expect(fencedCode(text, ["py"])).toBeNull();
});

it("reads a judge's answer with what models put around it", () => {
  const json = '{"scores": [{"id": "a", "explanation": "e", "score": 0.5}]}';
  for (const text of [
    json,
    `\n<think>{"scores"</think>\n${json}\n`,
    `\`\`\`\n${json}\n\`\`\``,
    `<think>\n</think>\n\n\`\`\`json \n\n${json}\r\n\n  \`\`\`\n`,
  ]) {
    expect(readAnswer(text, ["a"])).toMatchObject({ ok: true });
  }
  for (const text of [
    `\`\`\`python\n${json}\n\`\`\``,
    `\`\`\`json\n${json}`,
    `${json}\n\`\`\``,
    `\`\`\`json\n${json}\n\`\`\`\nThat is all.`,
    `<think>${json}`,
    "```json\n```",
  ]) {
    expect(readAnswer(text, ["a"])).toMatchObject({ ok: false });
  }
});

it("takes no longer for texts that are made to be slow", () => {
  // As patterns, each of these took minutes or hours.
  const n = 200_000;
  expect(fencedCode("```" + " ".repeat(n) + "a b c" + " ".repeat(n) + "`")).toBeNull();
  expect(fencedCode("```\n".repeat(n))).toBe("");
  expect(fencedCode("```x\n".repeat(n))).toBeNull();
  expect(readAnswer("```json" + "\n".repeat(n) + "x", []).ok).toBe(false);
  expect(readAnswer("```json" + "\n".repeat(n) + "x```", []).ok).toBe(false);
  expect(readAnswer("<think>".repeat(n / 2), []).ok).toBe(false);
  expect(taggedAnswer("<answer>".repeat(n))).toBeNull();
  expect(taggedAnswer("<answer>".repeat(n) + "\n<answer> 4 </answer>")).toBe("4");
});
