import { HoneError } from "@hone/core";

/** Flags of vLLM's that Hone sets itself, and why nobody else may. */
const ours: Readonly<Record<string, string>> = {
  "--model": "Hone serves the same base: give it as --base",
  "--served-model-name": "give the name as --served-name",
  "--host": "Hone alone talks to it, on the loopback address",
  "--port": "Hone alone talks to it, on a port that is free",
  "--api-key": "Hone makes a key for each start",
  "--dtype": "trainer and engine compute in the same type: give it as --dtype",
  "--enable-lora": "policies are adapters",
  "--no-enable-lora": "policies are adapters",
  "--logprobs-mode": "training needs the logprobs of what was sampled from",
  "--generation-config": "requests say how to sample",
  "--data-parallel-size": "an adapter would reach one of its engines only; use --replicas",
  "-dp": "an adapter would reach one of its engines only; use --replicas",
};

/** Throws where one of the flags would break what Hone relies on. vLLM itself refuses those that it does not know. */
export function checkVllmFlags(flags: readonly string[]): void {
  for (const flag of flags) {
    const name = (flag.split("=")[0] ?? "").replaceAll("_", "-");
    const why = ours[name];
    if (why === undefined) continue;
    throw new HoneError(`vLLM's ${name} is set by Hone: ${why}. Leave it out.`, {
      code: "invalid_config",
      param: "vllmFlags",
    });
  }
}
