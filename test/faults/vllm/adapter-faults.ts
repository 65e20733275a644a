import { join } from "node:path";
import { serves, until, type Fault } from "./fault.ts";
import { damage, joinedName, ownName, type Done, type Setting } from "./setting.ts";

const weights = "adapter_model.safetensors";

/** An adapter that cannot be used: it is refused, and nothing else changes. */
function refused(
  fault: Pick<Fault, "name" | "what">,
  attempt: (on: Setting) => Promise<Done>,
): Fault {
  return {
    ...fault,
    needsTraffic: false,
    async run(on) {
      const done = await attempt(on);
      const wrong: string[] = [];
      if (done.status === "succeeded" || !done.error?.startsWith("bad_adapter")) {
        wrong.push(`it was not refused: ${done.error ?? done.status}`);
      }
      for (const engine of [ownName, joinedName]) {
        if (!(await serves(on, engine))) wrong.push(`${engine} takes no traffic any more`);
      }
      return { noticed: done.seconds, back: null, said: done.error ?? "", wrong };
    },
  };
}

function imported(name: string, what: string, make: (on: Setting) => string): Fault {
  return refused({ name, what: `an adapter is imported that ${what}` }, (on) =>
    on.importFolder(make(on)),
  );
}

function damaged(how: "cut" | "nan"): (on: Setting) => string {
  return (on) => {
    const folder = on.adapterCopy();
    damage(join(folder, weights), how);
    return folder;
  };
}

/** The rank of a model that neither vLLM has slots for. */
const tooWide = 32;

const wideModel = refused(
  { name: "rank-of-model", what: `a model of rank ${tooWide} is made, and both vLLMs take 16` },
  async (on) => {
    const began = performance.now();
    const error = await on.server.hone
      .model({ name: "wide", lora: { r: tooWide, alpha: 16 } })
      .then(() => null)
      .catch((failed: unknown) => failed as { code?: string; message: string });
    const seconds = (performance.now() - began) / 1000;
    // The name is free again.
    await on.server.fetch("/v1/models/wide", { method: "DELETE" });
    if (error === null) return { status: "succeeded", seconds };
    return { status: "failed", error: `${error.code}: ${error.message}`, seconds };
  },
);

const flippedOnDisk: Fault = {
  name: "flipped-bit-on-disk",
  what: "a bit of a live policy flips on the server's disk; kill -9: the API server of the server's vLLM, which reads that disk",
  needsTraffic: true,
  async run(on, stop) {
    const { policies } = await on.engine(ownName);
    const step = Math.max(...policies.filter((one) => one.startsWith("m@")).map(stepOf));
    const logged = on.logged(ownName).length;
    damage(join(on.server.dataDir, "models/m/policies", String(step), weights), "flip");
    process.kill(on.vllm(ownName).api, "SIGKILL");
    const began = performance.now();
    await until("it was noticed", stop, async () => !(await serves(on, ownName)), 50);
    const noticed = (performance.now() - began) / 1000;
    await until("it serves again", stop, () => serves(on, ownName));
    const back = (performance.now() - began) / 1000;
    const wrong: string[] = [];
    if ((await on.engine(ownName)).policies.includes(`m@${step}`)) {
      wrong.push(`it serves m@${step}, whose file is damaged`);
    }
    if (!(await on.engine(joinedName)).policies.includes(`m@${step}`)) {
      wrong.push(`the other engine has lost m@${step}`);
    }
    const said = on
      .logged(ownName)
      .slice(logged)
      .find((line) => line.includes("is not what was written"));
    if (said === undefined) wrong.push("nobody was told of the file");
    return { noticed, back, said: said ?? "", wrong };
  },
};

const stepOf = (policy: string): number => Number(policy.split("@")[1]);

export const adapterFaults: readonly Fault[] = [
  imported("cut-file", "is cut off", damaged("cut")),
  imported("nan", "holds a NaN", damaged("nan")),
  imported("wrong-rank", "has another rank than its model", (on) => on.adapterCopy("bad-rank")),
  imported("wrong-shape", "is of a base of another shape", (on) => on.adapterCopy("bad-shape")),
  wideModel,
  flippedOnDisk,
];
