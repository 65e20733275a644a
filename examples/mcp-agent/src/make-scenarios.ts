// npm run scenarios -- filesystem [--count 64] [--seed 0] [--model gpt-4o-mini]
import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import OpenAI from "openai";
import { keepPossible } from "./keep-possible.ts";
import { withServer } from "./mcp-server.ts";
import { scenariosFromModel } from "./model-scenarios.ts";
import { makeScenarios } from "./scenarios.ts";
import { servers } from "./servers.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: "string", default: "64" },
    seed: { type: "string" },
    model: { type: "string" },
  },
});
const [name = ""] = positionals;
const [count, seed] = [Number(values.count), Number(values.seed ?? 0)];
const server = servers[name];
const wrong = [
  server ? "" : `Name a server: ${Object.keys(servers).join(" or ")}.`,
  count > 0 && Number.isInteger(count) ? "" : "--count is a whole number from 1 on.",
  Number.isInteger(seed) ? "" : "--seed is a whole number.",
  // A model draws by itself.
  values.model && values.seed ? "--seed is for scenarios without --model: leave one out." : "",
].filter(Boolean);
if (!server || wrong.length > 0) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
const stop = new AbortController();
process.once("SIGINT", () => stop.abort());

const about = await withServer(server, stop.signal, async ({ tools, instructions }) => ({
  ...{ tools, instructions },
}));
// The address and key of the model come from OPENAI_BASE_URL and OPENAI_API_KEY.
const scenarios = values.model
  ? await scenariosFromModel(
      { client: new OpenAI(), model: values.model },
      about,
      count,
      stop.signal,
    )
  : await keepPossible(
      server,
      makeScenarios(about.tools, { seed, words: server.words }),
      count,
      stop.signal,
    );
if (scenarios.length < count) {
  console.error(`Only ${scenarios.length} of ${count} scenarios were found; nothing is written.`);
  process.exit(1);
}
const path = fileURLToPath(new URL(`../scenarios/${name}.jsonl`, import.meta.url));
await mkdir(dirname(path), { recursive: true });
await writeFile(path, scenarios.map((one) => `${JSON.stringify(one)}\n`).join(""));
console.log(`${path}: ${scenarios.length} scenarios`);
