import { spawn, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import { vi } from "vitest";
import { runProgram } from "../cli/program.ts";

const cli = fileURLToPath(new URL("../cli.ts", import.meta.url));
const tsx = ["--import", "tsx", "--conditions=@hone/source"];

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  out: string;
  error: string;
}

/** The real command line as a child process. Variables of the test's own environment that name servers are unset. */
export function startCli(
  args: readonly string[],
  env: Record<string, string> = {},
  wrapper: readonly string[] = [],
): {
  child: ChildProcess;
  ended: Promise<Ended>;
  /** What it has written so far. */
  output: () => string;
  errorOutput: () => string;
} {
  const [command = "", ...rest] = [...wrapper, process.execPath, ...tsx, cli, ...args];
  const child = spawn(command, rest, {
    env: { ...process.env, HONE_URL: "", HONE_API_KEY: "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let error = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (error += text));
  const ended = new Promise<Ended>((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal, out, error }));
  });
  return { child, ended, output: () => out, errorOutput: () => error };
}

export function runCli(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  return startCli(args, env).ended;
}

/** The same in this process, without the second that a process takes to start. */
export async function runHere(args: readonly string[]): Promise<Ended> {
  vi.stubEnv("HONE_URL", "");
  vi.stubEnv("HONE_API_KEY", "");
  const out = vi.spyOn(console, "log").mockReturnValue();
  const error = vi.spyOn(console, "error").mockReturnValue();
  const text = ({ mock }: typeof out): string =>
    mock.calls.map(([line]) => `${String(line)}\n`).join("");
  try {
    const code = await runProgram(args);
    return { code, signal: null, out: text(out), error: text(error) };
  } finally {
    out.mockRestore();
    error.mockRestore();
    vi.unstubAllEnvs();
  }
}
