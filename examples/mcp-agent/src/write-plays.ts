// tsx --conditions=@hone/source examples/mcp-agent/src/write-plays.ts FILE [COUNT]: conversations of scripted players
// with the two servers, good and bad, one a line, which scripts/make-base/make_email.py makes a base of. Their
// scenarios are no run's.
import { createWriteStream } from "node:fs";
import { completeTask, opening } from "./agent.ts";
import { withServer, type RunningServer } from "./mcp-server.ts";
import { toOpenAITools } from "./openai-tools.ts";
import { pick, uniforms, type Random } from "./random.ts";
import { readers } from "./readers.ts";
import { makeScenarios, type Scenario } from "./scenarios.ts";

type Call = NonNullable<Scenario["calls"]>[number];

const [file, count = "16000"] = process.argv.slice(2);
if (file === undefined) throw new Error("Give a file to write to.");
const out = createWriteStream(file);
const random = uniforms(7);
const { signal } = new AbortController();
for (const server of readers) {
  await withServer(server, signal, async (running) => {
    const scenarios = makeScenarios(running.tools, { seed: 7, words: server.words });
    const others = Array.from({ length: 400 }, () => scenarios.next().value.calls ?? []).flat();
    const resultOf = remembering(running);
    const { tools } = toOpenAITools(running.tools, { reserved: [completeTask.function.name] });
    for (let at = 0; at < Number(count) / readers.length; at += 1) {
      const scenario = scenarios.next().value;
      const messages: object[] = opening(scenario.task, running.instructions, 6);
      const say = (name: string, args: object, id = `call_${messages.length}`) => {
        const made = { name, arguments: JSON.stringify(args) };
        const tool_calls = [{ id, type: "function", function: made }];
        messages.push({ role: "assistant", content: "", tool_calls });
        return (content: string) => messages.push({ role: "tool", tool_call_id: id, content });
      };
      for (const { tool, arguments: args } of played(scenario.calls ?? [], others, random)) {
        say(tool, args)(await resultOf(tool, args));
      }
      say(completeTask.function.name, { summary: "Done." });
      out.write(`${JSON.stringify({ messages, tools: [...tools, completeTask] })}\n`);
    }
  });
}
out.end();

/**
 * What a player makes of what it is asked for. One of three does it all. The others end early, make another call in
 * a call's place, or one that nobody asked for, and say all the same that they are done.
 */
function played(asked: readonly Call[], others: readonly Call[], draw: Random): Call[] {
  if (draw() < 0.35) return [...asked];
  const end = draw() < 0.4 ? Math.floor(draw() * asked.length) : asked.length;
  return asked.slice(0, end).flatMap((call) => {
    const alike = others.filter(({ tool }) => tool === call.tool);
    if (draw() < 0.3) return [pick(draw, alike)];
    return draw() < 0.1 ? [call, pick(draw, others)] : [call];
  });
}

/** The tools change nothing, so the same call gives the same result. */
function remembering(running: RunningServer) {
  const known = new Map<string, Promise<string>>();
  return (tool: string, args: Record<string, unknown>): Promise<string> => {
    const key = JSON.stringify([tool, args]);
    const result = known.get(key) ?? running.call(tool, args).then(({ text }) => text);
    known.set(key, result);
    return result;
  };
}
