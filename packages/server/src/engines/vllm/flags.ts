import { HoneError } from "@hone/core";

/** Flags of vLLM's that Hone sets itself, and why nobody else may. */
const ours: Readonly<Record<string, string>> = {
  "--model": "Hone serves the same base: give it as --base",
  "--served-model-name": "give the name as --served-name",
  "--host": "Hone alone talks to it, on the loopback address",
  "--port": "Hone alone talks to it, on a port that is free",
  "--api-key": "Hone makes a key for each start",
  "--dtype": "trainer and engine compute in the same type: give it as --dtype",
  "--max-model-len": "server and trainer have the same limit: give it as --max-model-len",
  "--revision": "the trainer computes with the base as it is",
  "--hf-overrides": "the trainer computes with the base as it is",
  "--trust-remote-code": "code that comes with a base is never run",
  "--enable-lora": "policies are adapters",
  "--no-enable-lora": "policies are adapters",
  "--logprobs-mode": "training needs the logprobs of what was sampled from",
  "--generation-config": "requests say how to sample",
  "--override-generation-config": "requests say how to sample",
  "--quantization":
    "the trainer computes with all bits of the base, and the engine has to sample from the same weights",
  "-q": "the trainer computes with all bits of the base, and the engine has to sample from the same weights",
  "--quantization-config":
    "the trainer computes with all bits of the base, and the engine has to sample from the same weights",
  "--lora-modules": "policies are loaded while it runs",
  "--disable-log-stats": "its metrics tell whether it makes progress",
  "--config": "flags from a file would not be looked at; give them one by one",
  "--enable-sleep-mode": "it also needs routes and a time to sleep: give --sleep",
  "--middleware": "it stands between vLLM's routes and whoever has no key",
  "--data-parallel-size": "an adapter would reach one of its engines only; use --replicas",
  "-dp": "an adapter would reach one of its engines only; use --replicas",
};

/** Throws where one of the flags would break what Hone relies on. vLLM itself refuses those that it does not know. */
export function checkVllmFlags(flags: readonly string[]): void {
  for (const flag of flags) {
    // vLLM takes a key of a flag's JSON behind a dot.
    const name = ourName((flag.split(/[=.]/)[0] ?? "").replaceAll("_", "-"));
    if (name === undefined) continue;
    const why = ours[name];
    throw new HoneError(`vLLM's ${name} is set by Hone: ${why}. Leave it out.`, {
      code: "invalid_config",
      param: "vllmFlags",
    });
  }
}

function ourName(given: string): string | undefined {
  if (Object.hasOwn(ours, given)) return given;
  return Object.keys(ours).find((name) => isTakenFor(name, given));
}

/**
 * Whether vLLM takes what was given for this flag: it lets a name be cut short where only one flag begins so, and refuses
 * the others itself. The value of a flag of one letter may follow at once.
 */
function isTakenFor(name: string, given: string): boolean {
  if (name.startsWith("--")) return given.length > 2 && name.startsWith(given);
  return name.length === 2 ? given.startsWith(name) : given.length > 1 && name.startsWith(given);
}

/** How many cards one vLLM with these flags computes on. */
export function cardsOf(flags: readonly string[]): number {
  return (
    numberOf(flags, "--tensor-parallel-size", "-tp") *
    numberOf(flags, "--pipeline-parallel-size", "-pp")
  );
}

/** 1 where there is none, or none that is a number: vLLM says so itself. */
function numberOf(flags: readonly string[], ...names: readonly string[]): number {
  const value = givenFlag(flags, ...names);
  return value !== undefined && /^[1-9]\d?$/.test(value) ? Number(value) : 1;
}

/** How many sequences a vLLM with these flags batches, where they say so. */
export function sequencesOf(flags: readonly string[]): number | undefined {
  return Number(givenFlag(flags, "--max-num-seqs")) || undefined;
}

/** What the operator gave a flag of vLLM's under one of its names, or under a beginning of one. The last one counts. */
export function givenFlag(
  flags: readonly string[],
  ...names: readonly string[]
): string | undefined {
  let found: string | undefined;
  flags.forEach((flag, at) => {
    const [key = "", value = flags[at + 1]] = flag.split("=");
    const given = key.startsWith("--") ? key.replaceAll("_", "-") : key;
    if (names.some((name) => isTakenFor(name, given))) found = value;
  });
  return found;
}
