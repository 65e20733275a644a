// Where the time of publications on joined engines went, from the logs of the server and of each sidecar. All run on this
// machine, so that one clock is in all of them.

interface Line {
  time: number;
  msg: string;
  policy?: string;
  served?: string[];
  tookMs?: number | Record<string, number>;
}

/** In their order. What is asked for at the same time (list and probe) is counted until each has come. */
const phases = [
  "the sidecar hears of it",
  "the weights arrive",
  "they are checked",
  "vLLM loads them",
  "vLLM lists them",
  "and answers the probe",
  "the server is told",
  "the alias moves",
] as const;

/** One policy on one engine. @unit ms, for each phase */
interface Way {
  policy: string;
  engine: string;
  took: number[];
}

/** A table of all phases, and each phase of the slowest publications. */
export function describePhases(
  serverLog: string,
  sidecarLogs: ReadonlyMap<string, string>,
  { slowest = 3 } = {},
): string {
  const server = parse(serverLog);
  const ways = [...sidecarLogs].flatMap(([engine, text]) => waysOf(server, parse(text), engine));
  const rows = phases.map((phase, at) =>
    row(
      phase,
      ways.map(({ took }) => took[at]!),
    ),
  );
  return [...rows, ...rowsOfSlowest(server, ways, slowest)].join("\n");
}

function parse(log: string): Line[] {
  return log
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Line);
}

function waysOf(server: readonly Line[], sidecar: readonly Line[], engine: string): Way[] {
  const ways: Way[] = [];
  for (const { policy, time: begun } of server.filter(({ msg }) => msg === began)) {
    const find = (some: readonly Line[], msg: string) =>
      some.find((line) => line.msg === msg && line.policy === policy);
    const arrived = find(sidecar, "the adapter has arrived");
    const checked = find(sidecar, "the adapter is here and checked");
    const ready = find(sidecar, "the engine is ready for the policy");
    const told = sidecar.find(({ served }) => served?.includes(policy ?? ""));
    const ended = find(server, published);
    if (policy === undefined || !arrived || !checked || !ready || !told || !ended) continue;
    const whole = checked.tookMs as number;
    const own = ready.tookMs as Record<string, number>;
    const took = [
      ...[checked.time - whole - begun, arrived.tookMs as number, checked.time - arrived.time],
      ...[own["load"] ?? 0, own["list"] ?? 0, own["probe"] ?? 0],
      ...[told.time - ready.time, Math.max(0, ended.time - told.time)],
    ];
    ways.push({ policy, engine, took });
  }
  return ways;
}

/** What the bench logs around each publication. */
export const began = "a publication begins";
export const published = "a publication ends";

function rowsOfSlowest(server: readonly Line[], ways: readonly Way[], count: number): string[] {
  const times = server
    .filter(({ msg }) => msg === published)
    .map(({ policy, tookMs }) => ({ policy, ms: tookMs as number }))
    .toSorted((a, b) => b.ms - a.ms)
    .slice(0, count);
  return times.flatMap(({ policy, ms }) => [
    `${policy} took ${ms} ms:`,
    ...ways
      .filter((way) => way.policy === policy)
      .map(
        ({ engine, took }) =>
          `  ${engine}: ${phases.map((p, at) => `${p} ${took[at]}`).join(", ")}`,
      ),
  ]);
}

function row(phase: string, took: number[]): string {
  const sorted = took.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  return `${phase}: median ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms (${sorted.length})`;
}
