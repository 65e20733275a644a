const timeoutMs = 2_000;

/** The embedded engine's own counters as Prometheus text. Empty while the engine is away. */
export async function engineMetrics(
  baseURL: () => string,
  key: () => string | null,
): Promise<string> {
  try {
    const response = await fetch(`${baseURL()}/metrics`, {
      headers: { authorization: `Bearer ${key() ?? ""}` },
      signal: AbortSignal.timeout(timeoutMs),
    });
    return response.ok ? await response.text() : "";
  } catch {
    return "";
  }
}
