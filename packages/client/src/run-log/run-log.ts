import { appendFile, readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  HoneError,
  refuseUnknownOptions,
  requireNumber,
  requireObject,
  wellFormedJson,
} from "@hone/core";
import type { OperationEvent, TrainResult, TrajectoryGroup } from "@hone/core";
import { makeFolder } from "@hone/transport/node";
import { writeGroups } from "../training/group-files.ts";
import { requireGroups, requireList, requireText } from "../argument-kinds.ts";
import type { CurriculumShares } from "../training/curriculum.ts";
import type { FillCounts } from "../training/fill.ts";
import type { OverlapCounts } from "../training/play-ahead.ts";
import type { StepFigures } from "../stopping/step-figures.ts";
import { adviceFor } from "./advice.ts";
import { curves, type CurvesOptions, type RunRecord } from "./curves.ts";
import {
  evaluated,
  evaluationFile,
  type EvaluationRecord,
  evaluationRecord,
  isSameEvaluation,
} from "./evaluation-record.ts";
import { runLines } from "./run-lines.ts";
import { addStage, type StepRecord, stepRecord } from "./step-record.ts";
import { toldOnce } from "./told-once.ts";

/** A step that is being played and trained. Its clock starts with `RunLog.step`. */
export interface StepLog {
  /**
   * Call it when the rollouts are gathered. It gives them back. `fill` is what `fillBatch` says of them, `overlap` what
   * `playAhead` does: how long they took is then known from it. `also` are groups of another kind that train in the
   * same step: they stand in the record by their `metadata.kind`.
   */
  gathered(
    groups: TrajectoryGroup[],
    fill?: FillCounts | null,
    overlap?: OverlapCounts | null,
    also?: readonly TrajectoryGroup[],
  ): TrajectoryGroup[];
  /** What a run's alarms were read off: it stands in the step's line. */
  watched(figures: StepFigures): void;
  /** Pass it to `train`: it adds up the seconds of the stages. */
  readonly onEvent: (event: OperationEvent) => void;
  /** Writes the step's line, its trajectories and the curves. */
  trained(result: TrainResult): Promise<StepRecord>;
}

/** Writes what a run leaves in its folder: metrics.jsonl, trajectories/*.jsonl, curves.svg. */
export interface RunLog {
  readonly folder: string;
  readonly records: readonly RunRecord[];
  /** Begins a step. `batch` comes from `model.batches`; `steps` is the number of the whole run, if it is known. */
  step(batch: LoggedBatch): StepLog;
  /**
   * Writes an evaluation: its scores (`metrics`, "reward" by default) and its trajectories. An evaluation with the
   * same label after the same step replaces the earlier one.
   */
  evaluation(
    label: string,
    groups: readonly TrajectoryGroup[],
    options?: { metrics?: readonly string[] | undefined },
  ): Promise<EvaluationRecord[]>;
  /** The curves for a terminal, one on each line: the first value, the curve, the last value and its notes. */
  lines(): string[];
}

interface Gathered {
  groups: TrajectoryGroup[];
  fill: FillCounts | null;
  overlap: OverlapCounts | null;
  also: readonly TrajectoryGroup[];
  /** When it was. */
  at: number;
}

interface LoggedBatch {
  readonly step: number;
  readonly steps?: number | undefined;
  readonly curriculum?: CurriculumShares | null | undefined;
}

export interface RunLogOptions extends CurvesOptions {
  /**
   * What the run's scores depend on: the task's settings, the base, the model's name. If the folder's run had other
   * settings, it is refused, because its curves and evaluations belong to something else.
   */
  settings?: Readonly<Record<string, string | number | boolean | null>> | undefined;
}

/**
 * Opens the folder of a run, or continues it. A step that is played again, because the run was cut off in it,
 * replaces what was written of it before.
 */
export async function openRunLog(folder: string, options: RunLogOptions = {}): Promise<RunLog> {
  requireText("openRunLog()", folder, "folder");
  refuseUnknownOptions("openRunLog()", options, ["settings", "references", "panels"]);
  const known = await requireSameSettings(folder, options.settings);
  makeFolder(join(folder, "trajectories"), { param: "folder" });
  if (options.settings && !known) {
    await replace(join(folder, settingsFile), `${JSON.stringify(options.settings, null, 2)}\n`);
  }
  const metricsFile = join(folder, "metrics.jsonl");
  const { records, whole } = await readRecords(metricsFile);
  if (!whole) await replace(metricsFile, linesOf(records));

  // One after another, in the order of the calls: they write the same files.
  let writing: Promise<void> = Promise.resolve();
  function inTurn(work: () => Promise<void>): Promise<void> {
    const next = writing.catch(() => undefined).then(work);
    writing = next;
    return next;
  }

  async function write(record: RunRecord): Promise<void> {
    const before = records.findIndex((other) => isSame(other, record));
    if (before < 0) {
      records.push(record);
      await appendFile(metricsFile, `${wellFormedJson(JSON.stringify(record))}\n`);
    } else {
      records.splice(before, 1);
      records.push(record);
      await replace(metricsFile, linesOf(records));
    }
    await replace(join(folder, "curves.svg"), curves(basename(folder), records, options));
  }

  function steps(): StepRecord[] {
    return records.filter((record) => record.type === "step").sort((a, b) => a.step - b.step);
  }

  return {
    folder,
    records,

    step(batch) {
      requireObject("step()", batch, "a batch, as model.batches() deals it out", "batch");
      requireNumber("batch.step", batch.step, { whole: true, least: 0 });
      const { steps: planned } = batch;
      const step = batch.step + 1;
      const began = performance.now();
      const stages = new Map<string, number>();
      let gathered: Gathered | null = null;
      let watch: StepFigures | null = null;
      return {
        gathered(groups, fill = null, overlap = null, also = []) {
          gathered = { groups, fill, overlap, also, at: performance.now() };
          return groups;
        },
        watched: (figures) => void (watch = figures),
        onEvent: (event) => addStage(stages, event),
        async trained(result) {
          if (!gathered) {
            throw new HoneError("trained() comes after gathered(): the step has no rollouts yet.", {
              code: "invalid_config",
            });
          }
          const { groups, fill, overlap, also, at } = gathered;
          const record = stepRecord({
            step,
            groups,
            fill,
            overlap,
            also,
            curriculum: batch.curriculum ?? null,
            watch,
            result,
            gatherSeconds: overlap?.played ?? (at - began) / 1000,
            trainSeconds: (performance.now() - at) / 1000,
            stages,
          });
          const earlier = steps().filter((other) => other.step < step);
          const evaluations = records.filter((other) => other.type === "evaluation");
          const advice = adviceFor([...earlier, record], { plannedSteps: planned, evaluations });
          Object.assign(record, toldOnce([...record.warnings, ...advice], earlier));
          await inTurn(async () => {
            await writeGroups(join(folder, "trajectories", stepFile(step)), [...groups, ...also]);
            await write(record);
          });
          return record;
        },
      };
    },

    async evaluation(label, groups, how = {}) {
      requireText("evaluation()", label, "label");
      requireGroups("evaluation()", groups);
      refuseUnknownOptions("evaluation()", how, ["metrics"]);
      const { metrics = ["reward"] } = how;
      requireList("evaluation()", metrics, "metrics");
      const given = evaluated(label, groups, steps().at(-1)?.step ?? 0);
      const written: EvaluationRecord[] = [];
      await inTurn(async () => {
        const made = records.filter((record) => record.type === "evaluation");
        const file = evaluationFile(given, made);
        await writeGroups(join(folder, "trajectories", file), groups);
        for (const metric of metrics) {
          const record = evaluationRecord({ ...given, metric, file }, groups);
          await write(record);
          written.push(record);
        }
      });
      return written;
    },

    lines: () => runLines(records),
  };
}

const settingsFile = "settings.json";

/**
 * Refuses settings that differ from those that the folder's run keeps, and writes nothing. Gives whether the
 * folder keeps any.
 */
export async function requireSameSettings(
  folder: string,
  settings: RunLogOptions["settings"] = {},
): Promise<boolean> {
  const text = await readFile(join(folder, settingsFile), "utf8").catch(() => null);
  if (text === null) return false;
  const known = JSON.parse(text) as Record<string, unknown>;
  for (const [name, value] of Object.entries(settings)) {
    if (!(name in known) || known[name] === value) continue;
    throw new HoneError(
      `The run in ${folder} has ${name} ${JSON.stringify(known[name])}, not ${JSON.stringify(value)}. Go on with the same settings, or name another folder.`,
      { code: "invalid_config", param: name },
    );
  }
  return true;
}

function isSame(a: RunRecord, b: RunRecord): boolean {
  if (a.type === "step") return b.type === "step" && a.step === b.step;
  return b.type === "evaluation" && a.metric === b.metric && isSameEvaluation(a, b);
}

function stepFile(step: number): string {
  return `step-${String(step).padStart(4, "0")}.jsonl`;
}

/** `whole` is false where a run was cut off in the middle of a line. */
async function readRecords(path: string): Promise<{ records: RunRecord[]; whole: boolean }> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  let whole = text === "" || text.endsWith("\n");
  const records = text.split("\n").flatMap((line): RunRecord[] => {
    if (!line.trim()) return [];
    try {
      return [JSON.parse(line) as RunRecord];
    } catch {
      whole = false;
      return [];
    }
  });
  return { records, whole };
}

function linesOf(records: readonly RunRecord[]): string {
  return records.map((record) => `${wellFormedJson(JSON.stringify(record))}\n`).join("");
}

/** Whole or not at all: someone may be looking at it. */
async function replace(path: string, text: string): Promise<void> {
  await writeFile(`${path}.partial`, text);
  await rename(`${path}.partial`, path);
}
