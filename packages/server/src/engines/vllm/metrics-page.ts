const answerTimeoutMs = 5_000;
/** A little less than the second in which each reader comes back. */
const defaultFreshMs = 900;

/** The page of an engine's `/metrics`, by the URL of its process. */
export type MetricsPage = (baseURL: string) => Promise<string>;

/**
 * One reading for all that want it at about the same time: its supervisor, the router, and who looks at the server's own
 * page. vLLM makes hundreds of lines for each, in the thread that also answers requests. A reading that failed is shared
 * with those that waited for it, and with nobody else.
 */
export function shareMetrics(
  options: { read?: MetricsPage; freshMs?: number; now?: () => number } = {},
): MetricsPage {
  const { read = readMetrics, freshMs = defaultFreshMs, now = () => performance.now() } = options;
  let last: { baseURL: string; page: Promise<string>; doneAt: number } | null = null;
  return (baseURL) => {
    if (last?.baseURL === baseURL && now() - last.doneAt < freshMs) return last.page;
    const reading = { baseURL, page: read(baseURL), doneAt: Infinity };
    last = reading;
    reading.page.then(
      () => void (reading.doneAt = now()),
      () => {
        if (last === reading) last = null;
      },
    );
    return reading.page;
  };
}

export const readMetrics: MetricsPage = async (baseURL) => {
  const response = await fetch(`${baseURL}/metrics`, {
    signal: AbortSignal.timeout(answerTimeoutMs),
  });
  if (!response.ok) throw new Error(`vLLM answered GET /metrics with ${response.status}`);
  return await response.text();
};
