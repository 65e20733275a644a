/**
 * The releases of vLLM that Hone knows. `setup --engine vllm` installs `vllmRelease`: the files beside `worker.txt` pin
 * it, for each kind of machine, and the contract suite and the faults of `docs/reliability.md` ran on it.
 */
export const vllmRelease = "0.32.0";

/** Minor releases whose patches are taken for the same. */
const tested = ["0.32"];

/** Why this release may be another engine than the one that was tested. Null where it is that one. */
export function untestedVllm(version: string): string | null {
  const minor = /^v?(\d+\.\d+)/.exec(version)?.[1];
  if (minor !== undefined && tested.includes(minor)) return null;
  return `It runs vLLM ${version}, and Hone is tested with ${vllmRelease}: \`hone doctor\` says whether this one gives the same tokens and logprobs.`;
}
