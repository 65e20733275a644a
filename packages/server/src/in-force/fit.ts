import type { OptionAdvice } from "@hone/core";
import type { Facts } from "./facts.ts";
import { engineRules } from "./fit-engines.ts";
import { memoryRules } from "./fit-memory.ts";
import { counted, type Rule } from "./rule.ts";
import { toleranceOf } from "./options-in-force.ts";

/** Which options do not fit the machine, or one another, and what to do. What is refused at the start is not among them. */
export function adviceOn(facts: Facts): OptionAdvice[] {
  return [...engineRules, ...memoryRules, ...otherRules].flatMap((rule) => rule(facts) ?? []);
}

const otherRules: readonly Rule[] = [
  ({ given, base }) =>
    given.maxModelLen !== undefined && given.maxModelLen > base.maxModelLen
      ? {
          ...{ options: ["--max-model-len"], verdict: "hint" },
          message: `${given.maxModelLen} were given and ${base.maxModelLen} are in force: the base, or an engine, takes no more.`,
        }
      : null,

  ({ given, machine }) =>
    (given.device ?? "cpu") === "cpu" && machine.cards.length > 0
      ? {
          ...{ options: ["--device"], verdict: "hint" },
          message: `This machine has ${counted(machine.cards.length, "card")}, and the trainer computes on the processor. Add --device cuda.`,
        }
      : null,

  ({ given, machine, base }) =>
    (given.device ?? "cpu") === "cpu" && base.dtype === "bfloat16" && !machine.bfloat16
      ? {
          ...{ options: ["--dtype", "--device"], verdict: "hint" },
          message:
            "This processor has no instructions for bfloat16 (AVX512-BF16), so it is slower than float32. Leave --dtype out.",
        }
      : null,

  ({ given }) =>
    given.recompute === "on"
      ? {
          ...{ options: ["--recompute"], verdict: "hint" },
          message:
            "Each backward takes a third more time. `auto` does the same, but only where a micro-batch would not fit otherwise.",
        }
      : null,

  ({ given }) => {
    const seconds = (given.deadlines?.trainingMs ?? Infinity) / 1000;
    return seconds < 60
      ? {
          ...{ options: ["--training-deadline"], verdict: "hint" },
          message: `A worker that shows no progress for ${seconds} s is ended, and a large micro-batch may take that long. After three times the step is given up. The default is 300.`,
        }
      : null;
  },

  ({ given, base }) => {
    const tolerance = given.probeTolerance;
    const usual = toleranceOf(base.dtype);
    if (tolerance === undefined) return null;
    if (tolerance < usual / 10) {
      return {
        ...{ options: ["--probe-tolerance", "--dtype"], verdict: "misfit" },
        message: `Engines that are right differ by more than ${tolerance} in ${base.dtype}, and would be fenced. The default is ${usual}.`,
      };
    }
    if (tolerance <= usual * 10) return null;
    return {
      ...{ options: ["--probe-tolerance", "--dtype"], verdict: "hint" },
      message: `An engine with other weights may differ by less than ${tolerance} and is then not noticed. The default in ${base.dtype} is ${usual}; \`hone doctor\` measures what the engines differ by.`,
    };
  },
];
