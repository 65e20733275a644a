/** Agents that cannot be edited, as they are published, where they are installed. */
import { runHarness } from "@hone/client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startScripted, type Scripted } from "./scripted.ts";

// Hundreds of MiB each, so nobody installs them for a test: their programs are named by these variables.
const codex = process.env["HONE_CODEX"];
const claude = process.env["HONE_CLAUDE"];

describe.skipIf(!codex && !claude)("published harnesses", () => {
  let scripted: Scripted;
  beforeAll(async () => {
    scripted = await startScripted();
  });
  afterAll(() => scripted?.close());

  const instructions = "You find the key.";
  const question = "Write the key into found.txt.";

  it.skipIf(!codex)("runs Codex", async () => {
    const model = scripted.play([
      scripted.calls(["exec_command", { cmd: "echo key > found.txt" }]),
      scripted.text("Done."),
    ]);
    const { baseURL, model: name } = model.connection();
    const provider = `{name="Hone",base_url="${baseURL}",env_key="OPENAI_API_KEY",wire_api="responses"}`;
    const settings = {
      model_provider: "hone",
      "model_providers.hone": provider,
      model_instructions_file: "instructions.md",
      web_search: "disabled",
      "features.multi_agent": "false",
      "features.goals": "false",
    };
    const run = await runHarness(model, {
      command: [
        ...([codex!, "exec", "--skip-git-repo-check", "--model", name] as const),
        "--dangerously-bypass-approvals-and-sandbox",
        ...Object.entries(settings).flatMap(([key, value]) => ["-c", `${key}=${value}`]),
        question,
      ],
      files: { "instructions.md": instructions },
    });
    expect(run).toMatchObject({ exitCode: 0, files: { "found.txt": "key\n" } });
    expect(run.stdout).toContain("Done.");
    scripted.expectOneConversation(2);
  });

  it.skipIf(!claude)("runs Claude Code", async () => {
    const model = scripted.play([
      scripted.calls(["Bash", { command: "echo key > found.txt" }]),
      scripted.text("Done."),
    ]);
    const run = await runHarness(model, {
      command: [
        ...([claude!, "-p", "--bare", "--tools", "Bash", "--allowedTools", "Bash"] as const),
        ...["--system-prompt", instructions, question],
      ],
      env: {
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
        CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS: "1",
        CLAUDE_CODE_EFFORT_LEVEL: "unset",
        MAX_THINKING_TOKENS: "0",
      },
    });
    expect(run).toMatchObject({ exitCode: 0, files: { "found.txt": "key\n" } });
    expect(run.stdout).toContain("Done.");
    scripted.expectOneConversation(2);
  });
});
