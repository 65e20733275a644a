import { mkdir, utimes, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { McpServer } from "./mcp-server.ts";

// Two of the reference servers of the protocol, each with something in it. Both need no network.

const require = createRequire(import.meta.url);
// The servers' own programs, started by this Node: `npx` would stand between and outlive a kill.
const filesystemProgram = require.resolve("@modelcontextprotocol/server-filesystem/dist/index.js");
const memoryProgram = require.resolve("@modelcontextprotocol/server-memory/dist/index.js");

const files = {
  "notes/plan.txt": "Monday: paint the door\nTuesday: order tiles\nWednesday: call Ann\n",
  "notes/ideas.txt": "A bench by the window.\nShelves of oak.\n",
  "bills/tiles.txt": "Tiles, 12 boxes: 340.00\nDelivery: 25.00\n",
  "bills/paint.txt": "Paint, 3 cans: 57.50\n",
  "readme.txt": "Notes and bills of the house.\n",
};

export const filesystem: McpServer = {
  name: "filesystem",
  start: (folder) => ({
    command: process.execPath,
    args: [filesystemProgram, folder],
  }),
  async prepare(folder) {
    for (const [path, text] of Object.entries(files)) {
      const file = join(folder, path);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text);
      await utimes(file, new Date(0), new Date(0));
    }
  },
  // Without the tools that it calls deprecated, and those whose results hold the time of the run or no text.
  only: [
    ...["read_text_file", "read_multiple_files", "write_file", "edit_file", "create_directory"],
    ...["list_directory", "move_file", "search_files"],
  ],
  words: {
    path: [...Object.keys(files), "notes", "bills", "drafts"],
    paths: Object.keys(files),
    source: Object.keys(files),
    destination: ["notes/old.txt", "bills/old.txt", "copy.txt"],
    content: ["Call Ann on Monday.", "Oak, two boards."],
    pattern: ["*.txt", "**/*.txt", "**/plan.txt"],
    excludePatterns: ["*.md"],
    head: [1, 2],
    tail: [1],
    oldText: ["order tiles", "Shelves of oak."],
    newText: ["order paint", "Shelves of pine."],
  },
};

const people = [
  { name: "Ann", entityType: "person", observations: ["likes oak"] },
  { name: "Bob", entityType: "person", observations: ["lays tiles"] },
  { name: "House", entityType: "place", observations: ["has a green door"] },
];

// #region memory
export const memory: McpServer = {
  name: "memory",
  start: (folder) => ({
    command: process.execPath,
    args: [memoryProgram],
    env: { MEMORY_FILE_PATH: join(folder, "memory.jsonl") },
  }),
  prepare: (folder) =>
    writeFile(
      join(folder, "memory.jsonl"),
      people.map((one) => JSON.stringify({ type: "entity", ...one })).join("\n"),
    ),
  words: {
    name: ["Cleo", "Dan", "Garden"],
    entityType: ["person", "place"],
    observations: ["likes oak", "lays tiles", "has a green door"],
    contents: ["is away in May", "was painted"],
    entityName: people.map(({ name }) => name),
    entityNames: people.map(({ name }) => name),
    names: people.map(({ name }) => name),
    from: people.map(({ name }) => name),
    to: people.map(({ name }) => name),
    relationType: ["knows", "works at"],
    query: ["oak", "tiles", "door", "person"],
  },
};
// #endregion

/** Those that `npm run scenarios` knows, by name. */
export const servers: Readonly<Record<string, McpServer>> = { filesystem, memory };
