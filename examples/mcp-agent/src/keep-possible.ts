import { withServer, type McpServer } from "./mcp-server.ts";
import type { Scenario } from "./scenarios.ts";

const atOnce = 4;

/**
 * The first `count` different scenarios whose calls a fresh server makes without an error, in their order. It gives
 * up after 20 candidates for each that is wanted.
 */
export async function keepPossible(
  server: McpServer,
  candidates: Iterator<Scenario>,
  count: number,
  signal: AbortSignal,
): Promise<Scenario[]> {
  const kept: Scenario[] = [];
  const seen = new Set<string>();
  for (let tried = 0; tried < 20 * count && kept.length < count; tried += atOnce) {
    const wave = Array.from({ length: atOnce }, () => candidates.next())
      .flatMap(({ value, done }) => (done ? [] : [value]))
      .filter(({ task }) => !seen.has(task) && seen.add(task));
    const possible = await Promise.all(wave.map((one) => isPossible(server, one, signal)));
    kept.push(...wave.filter((_, at) => possible[at]));
  }
  return kept.slice(0, count);
}

function isPossible(server: McpServer, { calls = [] }: Scenario, signal: AbortSignal) {
  return withServer(server, signal, async (running) => {
    for (const call of calls) {
      if ((await running.call(call.tool, call.arguments)).failed) return false;
    }
    return true;
  });
}
