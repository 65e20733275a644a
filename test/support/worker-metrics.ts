import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface WorkerMetrics {
  running: number;
  waiting: number;
  generated: number;
}

/**
 * Asks a server's worker itself, behind the server's back: the port and the key of this boot are in `/proc`
 * for whoever owns the process.
 */
export function workerMetrics(pid: number): () => Promise<WorkerMetrics> {
  const key = /(?:^|\0)HONE_WORKER_KEY=([^\0]*)/.exec(
    readFileSync(`/proc/${pid}/environ`, "utf8"),
  )?.[1];
  const url = `http://127.0.0.1:${listeningPort(pid)}/metrics`;
  return async () => {
    const ask = () => fetch(url, { headers: { authorization: `Bearer ${key}` } });
    // A socket that idled for 5 s is closed by uvicorn, also at the moment at which it is used again.
    const response = await ask().catch(ask);
    const text = await response.text();
    const value = (name: string): number => {
      const found = new RegExp(`^vllm:${name}\\{[^}]*\\} ([\\d.]+)`, "m").exec(text)?.[1];
      if (found === undefined) throw new Error(`no metric ${name} in ${text}`);
      return Number(found);
    };
    return {
      running: value("num_requests_running"),
      waiting: value("num_requests_waiting"),
      generated: value("generation_tokens_total"),
    };
  };
}

function listeningPort(pid: number): number {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return [];
      }
    }),
  );
  const listening = "0A";
  for (const line of readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1)) {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    if (state === listening && inodes.has(inode)) return parseInt(local.split(":")[1] ?? "", 16);
  }
  throw new Error(`process ${pid} listens on no port`);
}
