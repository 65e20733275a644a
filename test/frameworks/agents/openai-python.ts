import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Agent } from "../agent.ts";
import { describe, found, instructions, question, schemas } from "../house.ts";

const tools = (["look", "open"] as const).map((name) => ({
  type: "function",
  function: { name, description: describe[name], parameters: schemas[name] },
}));

/** A program in Python, which gets its connection from the environment. */
export const agent: Agent = async ({ openai: { baseURL, apiKey, model }, streamed }) => {
  const house = JSON.stringify({ instructions, question, found, tools });
  const script = join(import.meta.dirname, "openai_python.py");
  const { stdout } = await promisify(execFile)(
    process.env["HONE_PYTHON"]!,
    [script, house, streamed ? "streamed" : "whole"],
    { env: { ...process.env, OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey, MODEL: model } },
  );
  return stdout;
};
