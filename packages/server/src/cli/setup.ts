import { Command } from "commander";
import { setUp } from "../setup/setup.ts";

export function setupCommand(): Command {
  return new Command("setup")
    .description("Makes the Python environment of the renderer, the trainer and the engine")
    .option("--test", "also what the tests of this repository need")
    .addHelpText(
      "after",
      `
It is made once, in HONE_CACHE (default: ~/.cache/hone), and shared by all projects. HONE_PYTHON names an
interpreter to be used as it is; HONE_TORCH_INDEX names another package index for torch.`,
    )
    .action(async (options: { test?: boolean }) => {
      const python = await setUp(options.test ? "test" : "worker", {
        say: (line) => console.error(line),
      });
      console.log(python);
    });
}
