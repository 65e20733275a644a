import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createTextGate } from "./text-gate.ts";

const markers = ["<tool_call>", "<think>"];

function passedOf(texts: readonly string[], keep = true): string {
  const gate = createTextGate(markers);
  for (const text of texts) {
    gate.push(text);
    if (gate.undecided) gate.decide(keep);
  }
  return gate.passed;
}

describe("text gate", () => {
  it("passes content as it comes", () => {
    const gate = createTextGate(markers);
    expect(gate.push("up")).toBe("up");
    expect(gate.push(" and")).toBe(" and");
    expect(gate.push(" ")).toBe("");
    expect(gate.push("left")).toBe(" left");
  });

  it("holds what may be the beginning of a marker, and lets it go when it is none", () => {
    const gate = createTextGate(markers);
    expect(gate.push("a <to")).toBe("a");
    expect(gate.push("x")).toBe(" <tox");
  });

  it("holds everything from a marker on", () => {
    expect(passedOf(["look ", "<tool", "_call>{}", "</tool_call> after"])).toBe("look");
    expect(passedOf(["<think>why</think>left"])).toBe("");
  });

  it("holds everything where the renderer cannot tell", () => {
    const gate = createTextGate([""]);
    expect(gate.push("words")).toBe("");
    expect(gate.undecided).toBe(false);
  });

  it("asks whether leading white space is content", () => {
    expect(passedOf(["\n", "hi"], true)).toBe("\nhi");
    expect(passedOf(["\n", "hi"], false)).toBe("hi");
    expect(passedOf(["\n", "<tool_call>{}"], true)).toBe("");
  });

  it("passes the same text however it is cut into chunks", () => {
    const piece = fc.constantFrom(
      "a",
      " ",
      "<",
      "<t",
      "<tool_call>",
      "<think>",
      "\n",
      "ool_call>",
      "é",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.boolean(), (pieces, keep) => {
        const whole = pieces.join("");
        const passed = passedOf(pieces, keep);
        const marker = Math.min(
          ...markers.map((m) => (whole.includes(m) ? whole.indexOf(m) : whole.length)),
        );
        const visible = keep ? whole.slice(0, marker) : whole.slice(0, marker).trimStart();
        expect(visible.startsWith(passed)).toBe(true);
        expect(passedOf([...whole], keep)).toBe(passed);
      }),
    );
  });
});
