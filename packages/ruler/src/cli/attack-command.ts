import { readFile } from "node:fs/promises";
import process from "node:process";
import { HoneError } from "@hone/core";
import type { AttackFamily } from "../attacks/attack.ts";
import { runAttacks } from "../attacks/attack-run.ts";
import { attackFamilies } from "../attacks/attacks.ts";
import { table } from "./table.ts";

export interface AttackCommandOptions {
  judge: string;
  baseURL: string | undefined;
  families: readonly string[] | undefined;
  rubricFile: string | undefined;
  passes: number | undefined;
  maxLift: number;
  json: boolean;
}

/** Prints lift by family. 1 where the mean lift of any family is above the limit, or could not be measured. */
export async function attackCommand(options: AttackCommandOptions): Promise<number> {
  const families = options.families?.map((name): AttackFamily => {
    const known = attackFamilies.find((family) => family === name);
    if (known) return known;
    throw new HoneError(`There is no family "${name}". There are ${attackFamilies.join(", ")}.`, {
      code: "invalid_config",
    });
  });
  const { baseURL, judge: model, passes } = options;
  const judge =
    baseURL === undefined ? model : { baseURL, model, apiKey: process.env["JUDGE_API_KEY"] };
  const rubric = options.rubricFile && (await readFile(options.rubricFile, "utf8"));
  const report = await runAttacks(judge, {
    cache: false,
    ...(families ? { families } : {}),
    ...(rubric ? { rubric } : {}),
    ...(passes === undefined ? {} : { passes }),
    onOutcome: ({ attack, lift }, done, total) => {
      if (!process.stderr.isTTY) return;
      const said = lift === null ? "no scores" : lift.toFixed(2);
      process.stderr.write(`\r\u001b[K${done}/${total} ${attack.id}: ${said}`);
    },
  });
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
  const worst = report.worstFamily;
  if (options.json) console.log(JSON.stringify(report, null, 2));
  else {
    const head = ["family", "attacks", "mean lift", "worst lift", "won", "no scores"];
    const rows = report.families.map((family) => [
      family.family,
      family.attacks,
      family.meanLift,
      family.worstLift,
      family.won,
      family.failed,
    ]);
    console.log(
      `${report.judge}; without attack the worst attempt gets ${report.control.map((score) => score.toFixed(2)).join(" and ")}`,
    );
    console.log(table([head, ...rows]));
    const said = (lift: number | null | undefined): string => lift?.toFixed(3) ?? "unknown";
    const cost = report.costUsd === null ? "cost unknown" : `$${report.costUsd.toFixed(4)}`;
    console.log(
      `worst family ${worst?.family ?? "unknown"}: mean lift ${said(worst?.meanLift)} (limit ${options.maxLift}); over all attacks ${said(report.meanLift)}; ${cost}`,
    );
  }
  const lift = worst?.meanLift ?? null;
  return lift !== null && lift <= options.maxLift ? 0 : 1;
}
