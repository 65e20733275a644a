/** Coding assistants as the programs that they are. They differ in what they have to be told on their command line. */
import { runHarness } from "@hone/client";

type Model = Parameters<typeof runHarness>[0];
type Run = ReturnType<typeof runHarness>;

/** How each program is started, and the system prompt that it shall have. */
interface Told {
  program: string;
  instructions: string;
  task: string;
}

export async function codex(model: Model, { program, instructions, task }: Told): Run {
  // #region codex
  const { baseURL, model: name } = model.connection();
  const settings = {
    model_provider: "hone",
    "model_providers.hone": `{name="Hone",base_url="${baseURL}",env_key="OPENAI_API_KEY",wire_api="responses"}`,
    model_instructions_file: "instructions.md",
    web_search: "disabled", // no tools but functions
    "features.multi_agent": "false",
    "features.goals": "false",
  };
  const run = await runHarness(model, {
    command: [
      ...([program, "exec", "--skip-git-repo-check", "--model", name] as const),
      "--dangerously-bypass-approvals-and-sandbox", // it is its folder's only guest
      ...Object.entries(settings).flatMap(([key, value]) => ["-c", `${key}=${value}`]),
      task,
    ],
    files: { "instructions.md": instructions },
  });
  // #endregion
  return run;
}

export async function claudeCode(model: Model, { program, instructions, task }: Told): Run {
  // #region claude
  const run = await runHarness(model, {
    command: [
      ...([program, "-p", "--bare", "--tools", "Bash", "--allowedTools", "Bash"] as const),
      ...["--system-prompt", instructions, task],
    ],
    env: {
      CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS: "1", // no context_management
      CLAUDE_CODE_EFFORT_LEVEL: "unset",
      MAX_THINKING_TOKENS: "0",
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    },
  });
  // #endregion
  return run;
}
