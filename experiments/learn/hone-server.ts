// A server of the experiment: `hone serve` as a process of its own, as users run it.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Hone } from "@hone/client";
import { startProgram } from "./child.ts";
import type { LearnTask } from "./task.ts";

export interface BenchServer {
  url: string;
  key: string;
  dataDir: string;
  pid: number;
  hone: Hone;
  stop(): Promise<void>;
}

export interface Machine {
  python: string;
  threads: number;
}

const cli = fileURLToPath(new URL("../../packages/server/src/cli.ts", import.meta.url));

export async function startHoneServer(
  { base, dtype }: LearnTask,
  { python, threads }: Machine,
  folder: string,
): Promise<BenchServer> {
  const dataDir = join(folder, "server");
  await mkdir(dataDir, { recursive: true });
  const program = startProgram(
    process.execPath,
    [
      ...["--import", "tsx", "--conditions=@hone/source", cli, "serve", "--stop-at-eof"],
      ...["--base", base, "--dtype", dtype, "--port", "0", "--data-dir", dataDir, "--keep", "all"],
    ],
    {
      env: {
        HONE_PYTHON: python,
        HONE_API_KEY: "",
        HF_HUB_OFFLINE: "1",
        OMP_NUM_THREADS: String(threads),
      },
      log: join(folder, "server.log"),
    },
  );
  const said = new Map<string, string>();
  for await (const line of program.lines) {
    const [, name, value] = /^export (HONE_\w+)=(.*)$/.exec(line) ?? [];
    if (name && value) said.set(name, value);
    if (said.size === 2) break;
  }
  const url = said.get("HONE_URL");
  const key = said.get("HONE_API_KEY");
  if (!url || !key) {
    await program.stop();
    throw new Error(`The server did not start; its log is ${folder}/server.log.`);
  }
  return {
    url,
    key,
    dataDir,
    pid: program.pid,
    hone: new Hone({ baseURL: url, apiKey: key }),
    async stop() {
      await program.stop();
    },
  };
}
