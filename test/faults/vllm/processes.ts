import { execFileSync } from "node:child_process";

interface Process {
  pid: number;
  parent: number;
  group: number;
  command: string;
}

function processes(): Process[] {
  const text = execFileSync("ps", ["-eo", "pid=,ppid=,pgid=,args="], {
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  return text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const [pid, parent, group, ...command] = line.trim().split(/\s+/);
      return {
        ...{ pid: Number(pid), parent: Number(parent), group: Number(group) },
        command: command.join(" "),
      };
    });
}

export interface VllmProcesses {
  api: number;
  core: number;
}

/** Every vLLM that was looked at: each leads a process group. */
const seen = new Set<number>();

/** The API server and the core of the vLLM that a process has started. */
export function vllmOf(starter: number): VllmProcesses {
  const all = processes();
  const api = all.find(({ parent, command }) => parent === starter && isVllm(command));
  const core = all.find(
    ({ group, command }) => group === api?.pid && command.startsWith("VLLM::EngineCore"),
  );
  if (!api || !core) throw new Error(`the process ${starter} has no vLLM with a core`);
  seen.add(api.pid);
  return { api: api.pid, core: core.pid };
}

const isVllm = (command: string): boolean => command.includes("hone_vllm.py");

/** What is left of a process group, a stopped process among it. */
export function leftOf(group: number): number[] {
  return processes()
    .filter((one) => one.group === group && !one.command.includes("<defunct>"))
    .map(({ pid }) => pid);
}

/** What is left of every vLLM that was looked at, but for those that are to be there. */
export function leftOver(but: readonly VllmProcesses[]): number[] {
  const wanted = new Set(but.map(({ api }) => api));
  return [...seen].filter((group) => !wanted.has(group)).flatMap(leftOf);
}
