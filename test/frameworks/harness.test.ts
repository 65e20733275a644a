/** Agents that cannot be edited, as they are published, where they are installed. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { claudeCode, codex } from "./agents/harnesses.ts";
import { startScripted, type Scripted } from "./scripted.ts";

// Hundreds of MiB each, so nobody installs them for a test: their programs are named by these variables.
const programs = { codex: process.env["HONE_CODEX"], claude: process.env["HONE_CLAUDE"] };

describe.skipIf(!programs.codex && !programs.claude)("published harnesses", () => {
  let scripted: Scripted;
  beforeAll(async () => {
    scripted = await startScripted();
  });
  afterAll(() => scripted?.close());

  const published = [
    { name: "Codex", run: codex, program: programs.codex, call: ["exec_command", "cmd"] },
    { name: "Claude Code", run: claudeCode, program: programs.claude, call: ["Bash", "command"] },
  ] as const;
  for (const { name, run, program, call } of published) {
    it.skipIf(!program)(`runs ${name}`, async () => {
      const [tool, argument] = call;
      const model = scripted.play([
        scripted.calls([tool, { [argument]: "echo key > found.txt" }]),
        scripted.text("Done."),
      ]);
      const told = { program: program!, instructions: "You find the key.", task: "Find the key." };
      const ended = await run(model, told);
      expect(ended).toMatchObject({ exitCode: 0, files: { "found.txt": "key\n" } });
      expect(ended.stdout).toContain("Done.");
      scripted.expectOneConversation(2);
    });
  }
});
