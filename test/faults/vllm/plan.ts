import { readdirSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { startCli } from "../../../packages/server/src/testing/run-cli.ts";
import { testBase } from "../../../packages/server/src/testing/running-engine.ts";
import { adapterFaults } from "./adapter-faults.ts";
import { comings } from "./comings.ts";
import { holdsAll, serves, until, type Fault, type Which } from "./fault.ts";
import { leftOf } from "./processes.ts";
import { damage, joinedName, ownName, type Setting } from "./setting.ts";

/**
 * Sends the signal to one process of a vLLM, and follows it until the engine serves again. Where it is idle, nobody asks
 * for anything, and a publication is the first to meet it.
 */
function broken(
  which: Which,
  part: "api" | "core",
  signal: "SIGKILL" | "SIGSTOP",
  idle = false,
): Fault {
  const of = which === ownName ? "the server's vLLM" : "a vLLM behind its sidecar";
  const does = signal === "SIGKILL" ? "kill -9" : "SIGSTOP";
  const what = part === "api" ? "API server" : "engine core";
  const names = [which === ownName ? "own" : "joined", part];
  names.push(signal === "SIGKILL" ? "kill" : "stop", ...(idle ? ["idle"] : []));
  return {
    name: names.join("-"),
    what: `${does}: ${what} of ${of}${idle ? ", while nobody asks for anything but a publication" : ""}`,
    needsTraffic: true,
    async run(on, stop) {
      const before = on.vllm(which);
      const logged = on.logged(which).length;
      if (idle) await on.traffic.pause();
      process.kill(before[part], signal);
      const publishing = idle ? on.publish() : null;
      const noticed = await until(
        "it was noticed",
        stop,
        async () => !(await serves(on, which)),
        50,
      );
      const began = performance.now();
      on.traffic.resume();
      const published = await (publishing ?? on.publish());
      await until("it serves again", stop, () => serves(on, which));
      const back = noticed + (performance.now() - began) / 1000;
      const wrong = await holdsAll(on, which);
      if (published.status !== "succeeded") wrong.push(`publication meanwhile: ${published.error}`);
      const after = on.vllm(which);
      if (after.api === before.api || after.core === before.core) wrong.push("it is the same vLLM");
      const said = on
        .logged(which)
        .slice(logged)
        .find((line) => line.includes("has failed"));
      if (said === undefined) wrong.push("nobody was told why it was started again");
      // Behind it are lines of vLLM's own log.
      return { noticed, back, said: said?.replace(/\. Its last lines.*/, "") ?? "", wrong };
    },
  };
}

const sidecarStops: Fault = {
  name: "sidecar-stop-in-prepare",
  what: "SIGSTOP: a sidecar, while a policy is published; SIGCONT 30 s later",
  needsTraffic: true,
  async run(on, stop) {
    const publishing = on.publish();
    await delay(50);
    on.sidecar().child.kill("SIGSTOP");
    const published = await publishing;
    const waited = await until("it was noticed", stop, async () => !(await serves(on, joinedName)));
    const said = (await on.engine(joinedName)).reason ?? "";
    await delay(Math.max(0, 30 - published.seconds - waited) * 1000, undefined, { signal: stop });
    on.sidecar().child.kill("SIGCONT");
    const back = await until("it serves again", stop, () => serves(on, joinedName));
    const wrong = await holdsAll(on, joinedName);
    if (published.status !== "succeeded") wrong.push(`the publication: ${published.error}`);
    return { noticed: published.seconds + waited, back, said, wrong };
  },
};

const sidecarDies: Fault = {
  name: "sidecar-kill-damaged-cache",
  what: "kill -9: a sidecar; of the adapters that it kept every second has a flipped bit, every other is cut; it is started again",
  needsTraffic: true,
  async run(on, stop) {
    const { api } = on.vllm(joinedName);
    on.sidecar().child.kill("SIGKILL");
    const noticed = await until(
      "it was noticed",
      stop,
      async () => !(await serves(on, joinedName)),
    );
    const said = (await on.engine(joinedName)).reason ?? "";
    await until("its vLLM ended", stop, async () => leftOf(api).length === 0);
    const kept = join(on.sidecarFolder, "adapters");
    const adapters = readdirSync(kept);
    adapters.forEach((one, at) =>
      damage(join(kept, one, "adapter_model.safetensors"), at % 2 === 0 ? "flip" : "cut"),
    );
    const began = performance.now();
    await on.startSidecar();
    await until("it serves again", stop, () => serves(on, joinedName));
    const back = (performance.now() - began) / 1000;
    const wrong = await holdsAll(on, joinedName);
    const found = on
      .logged(joinedName)
      .filter((line) => line.includes("a kept adapter is damaged")).length;
    if (found === 0) wrong.push(`none of ${adapters.length} damaged adapters was found`);
    return { noticed, back, said, wrong };
  },
};

/** A command line that has to end by itself, with an error that says why. */
function refusedStart(
  fault: Pick<Fault, "name" | "what">,
  args: (on: Setting, port: number) => readonly string[],
  expected: RegExp,
): Fault {
  return {
    ...fault,
    needsTraffic: false,
    async run(on) {
      const taken = createServer().listen(0, "127.0.0.1");
      await once(taken, "listening");
      const { port } = taken.address() as AddressInfo;
      const began = performance.now();
      const { code, error } = await startCli(args(on, port), {
        HONE_JOIN_TOKEN: await on.joinToken(),
        HF_HUB_OFFLINE: "1",
      }).ended;
      const noticed = (performance.now() - began) / 1000;
      taken.close();
      await on.server.fetch("/v1/engines/late", { method: "DELETE" });
      const said = error.trim().split("\n").at(-1) ?? "";
      const wrong = code !== 0 && expected.test(said) ? [] : [`status ${code}: ${said}`];
      return { noticed, back: null, said, wrong };
    },
  };
}

const joinLate = (on: Setting, more: readonly string[]): string[] => [
  ...["engine", "--join", on.server.url, "--name", "late"],
  ...["--data-dir", `${on.sidecarFolder}-late`, ...more],
];

const answersNothing: Fault = {
  name: "no-tokens",
  what: "an engine answers 200 without a token, for 20 s",
  needsTraffic: true,
  async run(on, stop) {
    const logged = on.logged(ownName).length;
    on.silence(true);
    const noticed = await until(
      "it was noticed",
      stop,
      async () => !(await serves(on, joinedName)),
      50,
    );
    const said = (await on.engine(joinedName)).reason ?? "";
    const published = await on.publish();
    await delay(20_000, undefined, { signal: stop });
    const wrong: string[] = [];
    if (published.status !== "succeeded") wrong.push(`publication meanwhile: ${published.error}`);
    if (await serves(on, joinedName)) wrong.push("it takes traffic although it answers nothing");
    on.silence(false);
    const back = await until("it serves again", stop, () => serves(on, joinedName));
    wrong.push(...(await holdsAll(on, joinedName)));
    const first = on
      .logged(ownName)
      .slice(logged)
      .find((line) => line.includes("fenced off"));
    return { noticed, back, said: first ?? said, wrong };
  },
};

export const faults: readonly Fault[] = [
  broken(ownName, "api", "SIGKILL"),
  broken(ownName, "core", "SIGKILL"),
  broken(joinedName, "api", "SIGKILL"),
  broken(joinedName, "core", "SIGKILL"),
  broken(ownName, "api", "SIGSTOP"),
  broken(ownName, "core", "SIGSTOP"),
  broken(joinedName, "api", "SIGSTOP"),
  broken(joinedName, "core", "SIGSTOP"),
  broken(joinedName, "core", "SIGSTOP", true),
  sidecarStops,
  sidecarDies,
  answersNothing,
  ...comings,
  ...adapterFaults,
  refusedStart(
    { name: "wrong-base", what: "an engine joins with another base" },
    (on) => joinLate(on, ["--base", on.otherBase()]),
    /are not those of the server's base/,
  ),
  refusedStart(
    { name: "port-of-sidecar", what: "the port of a sidecar is taken" },
    (on, port) => joinLate(on, ["--base", testBase, "--listen", `127.0.0.1:${port}`]),
    /is taken/,
  ),
  refusedStart(
    { name: "port-of-server", what: "the port of `hone serve --engine vllm` is taken" },
    (on, port) => [
      ...["serve", "--engine", "vllm", "--base", testBase, "--port", String(port)],
      ...["--data-dir", `${on.sidecarFolder}-server`],
    ],
    /is taken/,
  ),
];
