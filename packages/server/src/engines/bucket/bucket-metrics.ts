import { metricLines } from "../../http/prometheus.ts";
import type { BucketStatus } from "./adapter-bucket.ts";

/** What the bucket did, as Prometheus text. */
export function formatBucketMetrics(status: BucketStatus | undefined): string {
  if (!status) return "";
  const lines = [
    ...metricLines("hone_bucket_up", "gauge", [["", status.state === "ready" ? 1 : 0]]),
    ...metricLines("hone_bucket_objects", "gauge", [["", status.objects]]),
    ...metricLines("hone_bucket_uploads_total", "counter", [["", status.uploads]]),
    ...metricLines("hone_bucket_failures_total", "counter", [["", status.failures]]),
    ...metricLines("hone_bucket_fallbacks_total", "counter", [["", status.fallbacks]]),
  ];
  return `${lines.join("\n")}\n`;
}
