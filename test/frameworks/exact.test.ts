/** Every framework against the server's gateway, where the model says what it is told to say. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { conversations } from "../../packages/server/src/ledger/trajectory.ts";
import { entriesOf, load, runnable } from "./matrix.ts";
import { reward, shapeOf } from "./reward.ts";
import { startScripted, type Scripted } from "./scripted.ts";

let scripted: Scripted;
beforeAll(async () => {
  scripted = await startScripted();
});
afterAll(() => scripted?.close());

describe.each(runnable)("the frameworks of %s", (set) => {
  const tokens: Record<string, object> = {};
  // The table of docs/frameworks.md.
  afterAll(() => void (process.env["HONE_MATRIX"] && console.table(tokens)));

  describe.each(entriesOf(set))("$name", (entry) => {
    it.each([false, true])("goes on token for token, streamed %s", async (streamed) => {
      const agent = await load(entry, set);
      const { calls, text } = scripted;
      const last = {
        text: text("In the chest."),
        object: text('{"place":"chest"}'),
        tool: calls(["Place", { place: "chest" }]),
      }[entry.final ?? "text"];
      const model = scripted.play([
        calls(["look", { where: "attic" }], ["look", { where: "hall" }]),
        calls(["open", { what: "chest" }]),
        last,
      ]);
      const said = await agent({
        openai: model.connection(),
        anthropic: model.anthropic(),
        streamed,
      });

      expect(said).toBe(entry.final ? '{"place":"chest"}' : "In the chest.");
      scripted.expectOneConversation(3, entry.split);
      const recorded = scripted.recorded();
      const [longest] = conversations(recorded);
      expect(shapeOf(longest!)).toEqual([
        ...["system", "user", "2 calls", "tool", "tool", "1 calls", "tool"],
        entry.final === "tool" ? "1 calls" : "answer",
      ]);
      expect(reward(longest!)).toBeCloseTo(0.9);

      const sampled = recorded.reduce((sum, one) => sum + one.sampled.length, 0);
      const rendered = scripted.requests().reduce((sum, one) => sum + one.prompt.length, sampled);
      const kept = recorded.reduce((sum, one) => sum + one.promptSuffix.length, sampled);
      const held = recorded.filter(({ constrained }) => constrained).length;
      const saved = `${((1 - kept / rendered) * 100).toFixed(0)} %`;
      tokens[`${entry.name}${streamed ? ", streamed" : ""}`] = { rendered, kept, saved, held };
      expect(kept / rendered).toBeLessThan(entry.split ? 0.8 : 0.5);
    });
  });
});
