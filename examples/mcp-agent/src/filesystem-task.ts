import { mcpTask } from "./mcp-task.ts";
import { readScenarios } from "./scenario-file.ts";
import { filesystem } from "./servers.ts";

export default mcpTask(
  filesystem,
  readScenarios(new URL("../scenarios/filesystem.jsonl", import.meta.url)),
);
