import { readdirSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { startCli } from "../../../packages/server/src/testing/run-cli.ts";
import { testBase } from "../../../packages/server/src/testing/running-engine.ts";
import { leftOf, vllmOf } from "./processes.ts";
import { damage, joinedName, ownName, type Setting } from "./setting.ts";

interface Outcome {
  noticed?: number;
  back?: number;
  said?: string;
  wrong?: string[];
}

export interface Fault {
  name: string;
  /** The other engine has to answer meanwhile. */
  needsTraffic: boolean;
  run: (on: Setting) => Promise<Outcome>;
}

const limitMs = 400_000;
type Which = typeof ownName | typeof joinedName;

async function until(what: string, holds: () => Promise<boolean>, everyMs = 50): Promise<number> {
  const began = performance.now();
  while (!(await holds())) {
    if (performance.now() - began > limitMs) throw new Error(`${what}: not in ${limitMs / 1000} s`);
    await delay(everyMs);
  }
  return (performance.now() - began) / 1000;
}

const serves = async (on: Setting, name: string): Promise<boolean> =>
  (await on.engine(name)).state === "serving";

async function vllmBehind(on: Setting, which: Which): Promise<{ api: number; core: number }> {
  if (which === joinedName) return vllmOf(on.sidecar().child.pid!);
  return vllmOf(process.pid);
}

/** Sends the signal to one process of a vLLM, and follows it until the engine serves again. */
function broken(which: Which, part: "api" | "core", signal: "SIGKILL" | "SIGSTOP"): Fault {
  const of = which === ownName ? "the server's vLLM" : "a vLLM behind its sidecar";
  const does = signal === "SIGKILL" ? "kill -9 of" : "SIGSTOP of";
  const what = part === "api" ? "API server" : "engine core";
  return {
    name: `${does} the ${what} of ${of}`,
    needsTraffic: true,
    async run(on) {
      const before = await vllmBehind(on, which);
      process.kill(before[part], signal);
      const noticed = await until("it was noticed", async () => !(await serves(on, which)));
      const said = (await on.engine(which)).reason ?? (await on.component(which)).state;
      const published = await on.publish();
      const back =
        noticed +
        published.seconds +
        (await until("it serves again", () => serves(on, which), 200));
      const wrong: string[] = [];
      if (published.status !== "succeeded") wrong.push(`publication meanwhile: ${published.error}`);
      const left = leftOf(before.api);
      if (left.length > 0) wrong.push(`${left.length} processes of the old vLLM are left`);
      const after = await vllmBehind(on, which);
      if (after.api === before.api || after.core === before.core) wrong.push("it is the same vLLM");
      wrong.push(...(await holdsAll(on, which)));
      return { noticed, back, said, wrong };
    },
  };
}

/** Whether the engine has what the other one has. */
async function holdsAll(on: Setting, which: Which): Promise<string[]> {
  const other = which === ownName ? joinedName : ownName;
  const [mine, theirs] = await Promise.all([on.engine(which), on.engine(other)]);
  const lacking = theirs.policies.filter((policy) => !mine.policies.includes(policy));
  return theirs.state === "serving" && lacking.length > 0 ? [`it lacks ${lacking.join(", ")}`] : [];
}

/** An adapter that cannot be used: it is refused, and nothing else changes. */
function refused(name: string, change: (folder: string) => void): Fault {
  return {
    name: `an adapter with ${name} is imported`,
    needsTraffic: false,
    async run(on) {
      const folder = on.adapterCopy();
      change(folder);
      const done = await on.importFolder(folder);
      const wrong: string[] = [];
      if (done.status === "succeeded" || !done.error?.startsWith("bad_adapter")) {
        wrong.push(`it was not refused: ${done.error ?? done.status}`);
      }
      for (const engine of [ownName, joinedName]) {
        if (!(await serves(on, engine))) wrong.push(`${engine} takes no traffic any more`);
      }
      return { noticed: done.seconds, said: done.error ?? "", wrong };
    },
  };
}

export const faults: readonly Fault[] = [
  broken(ownName, "api", "SIGKILL"),
  broken(ownName, "core", "SIGKILL"),
  broken(joinedName, "api", "SIGKILL"),
  broken(joinedName, "core", "SIGKILL"),
  {
    name: "SIGSTOP of a sidecar in prepare",
    needsTraffic: true,
    async run(on) {
      const publishing = on.publish();
      await delay(50);
      on.sidecar().child.kill("SIGSTOP");
      const published = await publishing;
      const noticed = await until("it was noticed", async () => !(await serves(on, joinedName)));
      const said = (await on.engine(joinedName)).reason ?? "";
      on.sidecar().child.kill("SIGCONT");
      const back = await until("it serves again", () => serves(on, joinedName));
      const wrong = await holdsAll(on, joinedName);
      if (published.status !== "succeeded") wrong.push(`the publication: ${published.error}`);
      return { noticed: published.seconds + noticed, back, said, wrong };
    },
  },
  {
    name: "kill -9 of a sidecar; its kept adapters: one with a flipped bit, one cut",
    needsTraffic: true,
    async run(on) {
      const { api } = vllmOf(on.sidecar().child.pid!);
      on.sidecar().child.kill("SIGKILL");
      const noticed = await until("it was noticed", async () => !(await serves(on, joinedName)));
      const said = (await on.engine(joinedName)).reason ?? "";
      await until("its vLLM ended", async () => leftOf(api).length === 0);
      const kept = join(on.sidecarFolder, "adapters");
      readdirSync(kept).forEach((one, at) =>
        damage(join(kept, one), at % 2 === 0 ? "flip" : "cut"),
      );
      const began = performance.now();
      await on.startSidecar();
      await until("it serves again", () => serves(on, joinedName), 200);
      const back = (performance.now() - began) / 1000;
      return { noticed, back, said, wrong: await holdsAll(on, joinedName) };
    },
  },
  refused("a cut file", (folder) => damage(folder, "cut")),
  refused("NaN", (folder) => damage(folder, "nan")),
  {
    name: "the port of a sidecar is taken",
    needsTraffic: false,
    async run(on) {
      const taken = createServer().listen(0, "127.0.0.1");
      await once(taken, "listening");
      const { port } = taken.address() as AddressInfo;
      const { token } = (await (
        await on.server.fetch("/v1/engines/tokens", { method: "POST", body: "{}" })
      ).json()) as { token: string };
      const began = performance.now();
      const { code, error } = await startCli(
        [
          ...["engine", "--join", on.server.url, "--name", "late", "--base", testBase],
          ...["--data-dir", `${on.sidecarFolder}-late`, "--listen", `127.0.0.1:${port}`],
        ],
        { HONE_JOIN_TOKEN: token },
      ).ended;
      taken.close();
      await on.server.fetch("/v1/engines/late", { method: "DELETE" });
      const last = error.trim().split("\n").at(-1) ?? "";
      const wrong = code !== 0 && /in use/i.test(last) ? [] : [`status ${code}: ${last}`];
      return { noticed: (performance.now() - began) / 1000, said: last, wrong };
    },
  },
  broken(ownName, "core", "SIGSTOP"),
  broken(ownName, "api", "SIGSTOP"),
  broken(joinedName, "core", "SIGSTOP"),
  broken(joinedName, "api", "SIGSTOP"),
];
