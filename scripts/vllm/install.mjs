// Started by setup.mjs, once the packages are there.
import process from "node:process";
import { setUpVllm } from "../../packages/server/src/setup/vllm.ts";

try {
  const python = await setUpVllm({ build: "cpu", say: (line) => console.error(line) });
  console.log(`vLLM is installed: ${python}`);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
