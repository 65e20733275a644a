import { gcReportSchema, gcRequestSchema, type GcReport, type Keep } from "@hone/core";
import { type Command, InvalidArgumentError } from "commander";
import { pino } from "pino";
import { collectOffline } from "../retention/offline.ts";
import { connectIfRunning, dataDirOf, serverCommand, type ServerFlags } from "./connection.ts";
import { keepOf } from "./keep.ts";
import { bytes, printJson, table } from "./print.ts";

interface GcFlags extends ServerFlags {
  dryRun?: boolean | undefined;
  olderThan?: number | undefined;
  keep?: Keep | undefined;
}

export function gcCommand(): Command {
  return serverCommand("gc")
    .description("Removes what nobody needs any more: old policies, what deaths left, unused pages")
    .option("--dry-run", "say what would go, and how many bytes; remove nothing")
    .option(
      "--keep <number|all>",
      "newest policies of each model that stay (default: the server's)",
      keepOf,
    )
    .option(
      "--older-than <age>",
      "completions of failed and expired rollouts that ended longer ago go too, such as 12h or 7d",
      ageOf,
    )
    .addHelpText(
      "after",
      `
Policy 0, the newest learnt and served, pinned ones, the best in evaluations, and those that open rollouts use
always stay. It works through the running server, or on the data directory where there is none.

Examples:
  hone gc --dry-run
  hone gc --keep 3 --older-than 7d`,
    )
    .action(async (flags: GcFlags) => {
      const request = gcRequestSchema.parse({
        dryRun: flags.dryRun ?? false,
        keep: flags.keep,
        olderThanMs: flags.olderThan,
      });
      const connection = await connectIfRunning(flags);
      const report = connection
        ? await connection.send(gcReportSchema, "POST", "/v1/gc", request)
        : await collectOffline(dataDirOf(flags), request, pino({ level: "silent" }));
      if (flags.json) printJson(report);
      else console.log(textOf(report));
    });
}

function textOf(report: GcReport): string {
  const { removed, dryRun, databaseBytes, databaseFreeBytes, bytes: total } = report;
  const lines: string[] = [];
  if (removed.length > 0) {
    lines.push(
      table(
        [
          { title: dryRun ? "WOULD GO" : "REMOVED" },
          { title: "WHAT" },
          { title: "SIZE", right: true },
        ],
        removed.map(({ kind, name, bytes: size }) => [kind, name, bytes(size)]),
      ),
    );
  }
  const verb = dryRun ? "would be freed" : "freed";
  lines.push(`${bytes(total)} ${verb}, and ${bytes(databaseBytes)} of the database's file.`);
  if (!dryRun && databaseFreeBytes > largeRest) {
    lines.push(
      `${bytes(databaseFreeBytes)} stay in the file, free for new rows: it is of an older version, and is rewritten only while no server uses it. Run \`hone gc\` then.`,
    );
  }
  return lines.join("\n");
}

/** Less than this is not worth a word. */
const largeRest = 16 * 1024 * 1024;

const unitMs = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 };

function ageOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([mhdw])$/.exec(text);
  if (match) return Number(match[1]) * unitMs[match[2] as keyof typeof unitMs];
  throw new InvalidArgumentError("Give a number and m, h, d or w, such as 12h or 7d.");
}
