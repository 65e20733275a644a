// Where vLLM is installed: the environment that `hone setup --engine vllm` makes.
import { tsImport } from "tsx/esm/api";

const { findVllm } = await tsImport("../../packages/server/src/setup/vllm.ts", import.meta.url);

/** The Python that has vLLM, or null. @param {"cpu" | "cuda"} build */
export function findVllmPython(build = "cpu") {
  try {
    return findVllm(build);
  } catch {
    return null;
  }
}
