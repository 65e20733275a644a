import type { LivePolicies } from "../../policies/live.ts";

/** Does the work while a policy is held, where there is one: retention leaves what is held. */
export async function whileHeld<Result>(
  live: Pick<LivePolicies, "hold" | "release">,
  policy: string | null | undefined,
  work: () => Promise<Result>,
): Promise<Result> {
  if (!policy) return await work();
  live.hold(policy);
  try {
    return await work();
  } finally {
    live.release(policy);
  }
}
