import { HoneError, type ServerOptionsInForce } from "@hone/core";
import type { Command } from "commander";
import { connect, serverCommand, type Connection, type ServerFlags } from "./connection.ts";
import { examine, type Finding } from "./doctor/checks.ts";
import { askOptions, misfits, optionTable } from "./doctor/options.ts";
import { Subject } from "./doctor/subject.ts";
import { number, printJson, table } from "./print.ts";

/** What a step warns of, on average over its tokens. @unit logprob */
const tolerances: Readonly<Record<string, number>> = { float32: 1e-3 };
const toleranceElsewhere = 0.1;

interface DoctorFlags extends ServerFlags {
  options?: boolean;
}

export function doctorCommand(): Command {
  return serverCommand("doctor")
    .description(
      "Examines a running server: whether its options fit, and its engines answer with what is trained",
    )
    .option("--options", "only tell which options are in force, and which do not fit")
    .addHelpText(
      "after",
      `
It tells which options of \`serve\` are in force, and which do not fit the machine or one another. Then it makes a model of its own, trains it a few large steps, asks the engines for its policies in turn and beside one
another, and deletes it. Agents may go on meanwhile; the times are then longer. The exit status is 0 if no check
failed and all options fit.

Examples:
  hone doctor
  hone doctor --options          # takes no time, and asks no engine
  hone doctor --url http://10.0.0.7:7777 --json`,
    )
    .action(doctor);
}

async function doctor(flags: DoctorFlags): Promise<void> {
  const connection = connect(flags);
  const { transport } = connection;
  const stop = new AbortController();
  const interrupt = () => stop.abort(new HoneError("Stopped.", { code: "aborted" }));
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, interrupt);
  const subject = new Subject(transport, stop.signal);
  const findings: Finding[] = [];
  const say = (text: string) => console.error(`doctor: ${text}`);
  try {
    const options = await reached(() => askOptions(transport, stop.signal), connection);
    if (flags.options) return tellOptions(flags, connection, options);
    const unfit = options ? misfits(options) : 0;
    const { base, dtype, maxModelLen } = await subject.begin();
    say(`${base} (${dtype}) at ${connection.url}, by the model ${subject.name}`);
    const tolerance = tolerances[dtype] ?? toleranceElsewhere;
    const running = () => runningOn(connection);
    await examine({ subject, tolerance, maxModelLen, running, say }, (finding) => {
      findings.push(finding);
      say(`${finding.check}: ${verdictOf(finding)}`);
    });
    const failed = findings.filter(({ verdict }) => verdict === "failed").length;
    const passed = failed === 0 && unfit === 0;
    const about = { url: connection.url, base, dtype, passed };
    if (flags.json) printJson({ ...about, findings, options });
    else console.log([...(options ? [optionTable(options)] : []), tableOf(findings)].join("\n\n"));
    if (passed) return;
    const what = [
      ...(failed > 0 ? [`${failed} of ${findings.length} checks failed`] : []),
      ...(unfit > 0 ? [whatIsUnfit(unfit)] : []),
    ];
    throw new HoneError(`${what.join(", and ")}. The table says what to do.`, {
      code: failed > 0 ? "engine_error" : "invalid_config",
    });
  } finally {
    for (const name of ["SIGINT", "SIGTERM"] as const) process.removeListener(name, interrupt);
    await subject.end();
  }
}

function tellOptions(
  flags: DoctorFlags,
  { url }: Connection,
  options: ServerOptionsInForce | null,
): void {
  if (!options) {
    throw new HoneError(
      `The server at ${url} is of a version that does not tell its options. Start it anew with this one.`,
      { code: "not_found" },
    );
  }
  const unfit = misfits(options);
  if (flags.json) printJson({ url, passed: unfit === 0, options });
  else console.log(optionTable(options));
  if (unfit === 0) return;
  throw new HoneError(`${whatIsUnfit(unfit)}. The table says what to do.`, {
    code: "invalid_config",
  });
}

function whatIsUnfit(count: number): string {
  return count === 1
    ? "one thing about the options does not fit"
    : `${count} things about the options do not fit`;
}

async function reached<T>(ask: () => Promise<T>, connection: Connection): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!HoneError.isInstance(error) || error.code !== "connection_failed") throw error;
    throw new HoneError(
      `No Hone server answers at ${connection.url}. Start one with \`npx @hone/server serve --base <model>\`, or name another with --url.`,
      { code: error.code, cause: error },
    );
  }
}

/** Requests that the engines are working on, as the server tells; null where none tells. */
async function runningOn({ transport }: Connection): Promise<number | null> {
  const page = await (await transport.open("GET", "/metrics")).text();
  const told =
    /^[\w:]*(?:num_requests_running|hone_engine_requests_running)(?:\{[^}]*\})? ([\d.e+]+)$/gm;
  const counts = [...page.matchAll(told)].map(([, count]) => Number(count));
  return counts.length === 0 ? null : counts.reduce((sum, count) => sum + count, 0);
}

function verdictOf({ verdict, measured, unit }: Finding): string {
  const words = { ok: "ok", failed: "FAILED", not_seen: "not seen" };
  return measured === null ? words[verdict] : `${words[verdict]} (${number(measured, 2)} ${unit})`;
}

function tableOf(findings: readonly Finding[]): string {
  const columns = [
    ...[{ title: "CHECK" }, { title: "MEASURED", right: true }, { title: "AT MOST", right: true }],
    ...[{ title: "UNIT" }, { title: "VERDICT" }, { title: "NOTE" }],
  ];
  const words = { ok: "ok", failed: "FAILED", not_seen: "not seen" };
  return table(
    columns,
    findings.map(({ check, measured, threshold, unit, verdict, note }) => [
      ...[check, number(measured, 2), number(threshold, 2), unit],
      ...[words[verdict], note],
    ]),
  );
}
