import type { McpServer } from "./mcp-server.ts";
import { filesystem, memory } from "./servers.ts";

/** The two servers with tools that change nothing: what `pnpm experiment mcp` trains on, and its base has seen. */
export const readers: readonly McpServer[] = [
  { ...filesystem, shared: true, only: ["read_multiple_files", "list_directory", "search_files"] },
  { ...memory, shared: true, only: ["read_graph", "search_nodes", "open_nodes"] },
];
