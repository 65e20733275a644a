import { setTimeout as delay } from "node:timers/promises";
import { joinedName, ownName, type Setting } from "./setting.ts";

/** What a fault has to tell of itself; the rest is looked at after each. */
interface Outcome {
  /** @unit s */
  noticed: number | null;
  /** @unit s */
  back: number | null;
  said: string;
  wrong: string[];
}

export interface Fault {
  name: string;
  what: string;
  /** The other engine has to answer meanwhile. */
  needsTraffic: boolean;
  run: (on: Setting, stop: AbortSignal) => Promise<Outcome>;
}

export type Which = typeof ownName | typeof joinedName;

/** @unit ms */
const limit = 400_000;

/** Resolves to how long it took. @unit s */
export async function until(
  what: string,
  stop: AbortSignal,
  holds: () => Promise<boolean>,
  everyMs = 200,
): Promise<number> {
  const began = performance.now();
  while (!(await holds())) {
    if (performance.now() - began > limit) throw new Error(`${what}: not in ${limit / 1000} s`);
    await delay(everyMs, undefined, { signal: stop });
  }
  return (performance.now() - began) / 1000;
}

export const serves = async (on: Setting, name: string): Promise<boolean> =>
  (await on.engine(name)).state === "serving";

/** What the engine lacks of what the other one has. */
export async function holdsAll(on: Setting, which: Which): Promise<string[]> {
  const other = which === ownName ? joinedName : ownName;
  const [mine, theirs] = await Promise.all([on.engine(which), on.engine(other)]);
  const lacking = theirs.policies.filter((policy) => !mine.policies.includes(policy));
  return theirs.state === "serving" && lacking.length > 0 ? [`it lacks ${lacking.join(", ")}`] : [];
}
