import { mcpTask } from "./mcp-task.ts";
import { readScenarios } from "./scenario-file.ts";
import { memory } from "./servers.ts";

export default mcpTask(
  memory,
  readScenarios(new URL("../scenarios/memory.jsonl", import.meta.url)),
);
