import { startCli } from "../../../packages/server/src/testing/run-cli.ts";
import { serves, until, type Fault } from "./fault.ts";
import { leftOf, vllmOf } from "./processes.ts";
import type { Cli, Setting } from "./setting.ts";

const third = "third";

/** Requests that are under way on it now, by the server's own count. */
async function underWay(on: Setting): Promise<number> {
  const text = await (await on.server.fetch("/metrics")).text();
  const found = new RegExp(`^hone_engine_in_flight{engine="${third}"} (\\d+)`, "m").exec(text);
  return Number(found?.[1] ?? 0);
}

/**
 * A third engine joins under a run and takes its share, policies are published with it, and it goes again. Nothing is
 * broken, so no stream may be.
 */
function comesAndGoes(options: {
  name: string;
  what: string;
  leave: (on: Setting, sidecar: Cli) => Promise<void>;
  status: number;
  says: RegExp;
}): Fault {
  const { name, what, leave, status, says } = options;
  return {
    ...{ name, what: `a third engine joins; ${what}`, needsTraffic: true },
    async run(on, stop) {
      const { traffic } = on;
      const before = { broken: traffic.broken.length, failed: traffic.failed.length };
      const began = performance.now();
      const sidecar = await on.join(third);
      await until("it serves", stop, async () => {
        if (sidecar.child.exitCode !== null) throw new Error((await sidecar.ended).error);
        return await serves(on, third).catch(() => false);
      });
      const came = (performance.now() - began) / 1000;
      const wrong: string[] = [];
      await until("it takes requests", stop, async () => (await underWay(on)) > 0);
      const published = await on.publish();
      if (published.status !== "succeeded") wrong.push(`publication with it: ${published.error}`);
      const { api } = vllmOf(sidecar.child.pid!);
      await until(
        "it takes requests of the new policy",
        stop,
        async () => (await underWay(on)) > 0,
      );
      const left = performance.now();
      await leave(on, sidecar);
      const { code, error } = await sidecar.ended;
      const went = (performance.now() - left) / 1000;
      if (code !== status) wrong.push(`it ended with status ${code}: ${error}`);
      const said = error.trim().split("\n").at(-1) ?? "";
      if (!says.test(said)) wrong.push(`it said: ${said}`);
      if (leftOf(api).length > 0) wrong.push("its vLLM is left");
      for (const one of traffic.broken.slice(before.broken))
        wrong.push(`a stream broke off: ${one}`);
      // It may come back, as one that was not removed.
      await on.server.fetch(`/v1/engines/${third}`, { method: "DELETE" });
      return { noticed: came, back: went, said, wrong };
    },
  };
}

export const comings: readonly Fault[] = [
  comesAndGoes({
    name: "third-drains",
    what: "SIGTERM to its sidecar while streams run on it",
    async leave(_, { child }) {
      child.kill("SIGTERM");
    },
    status: 0,
    says: /^(?!.*cut off)/,
  }),
  comesAndGoes({
    name: "third-removed",
    what: "`hone engines remove` while streams run on it",
    async leave({ server }) {
      const { code, error } = await startCli(["engines", "remove", third, "--url", server.url], {
        HONE_API_KEY: server.key,
      }).ended;
      if (code !== 0) throw new Error(error);
    },
    status: 1,
    says: /the engine was removed/,
  }),
];
