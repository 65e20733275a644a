import { createHash } from "node:crypto";
import type { LiveAdapter } from "../ports/live-set.ts";

/** An adapter for tests in which nobody looks at its files: its digest is of its folder's name. */
export function adapterAt(policy: string, path = `/policies/${policy.split("@")[1]}`): LiveAdapter {
  const sha256 = createHash("sha256").update(path).digest("hex");
  return { policy, path, sha256, bytes: 1, rank: 16 };
}
