import { policyInfoSchema } from "@hone/core";
import type { Command } from "commander";
import { connect, serverCommand, type ServerFlags } from "./connection.ts";
import { policyRefOf, type PolicyRef } from "./policy-ref.ts";
import { printJson } from "./print.ts";

export function pinCommand(): Command {
  return pinning("pin", true, "Keeps a policy on disk, however old it becomes");
}

export function unpinCommand(): Command {
  return pinning("unpin", false, "Lets retention remove a policy again when it is old");
}

function pinning(name: string, pinned: boolean, description: string): Command {
  return serverCommand(name)
    .description(description)
    .argument("<policy>", "model@N", policyRefOf)
    .addHelpText("after", `\nExample:\n  hone ${name} agent-2048@12`)
    .action(async ({ model, step }: PolicyRef, flags: ServerFlags) => {
      const path = `/v1/models/${model}/policies/${step}`;
      const policy = await connect(flags).send(policyInfoSchema, "PATCH", path, { pinned });
      if (flags.json) printJson(policy);
      else if (pinned) console.log(`${policy.id} is pinned.`);
      else {
        const still =
          policy.keptAs.length > 0
            ? `still kept as ${policy.keptAs.join(", ")}`
            : "retention may remove it";
        console.log(`${policy.id} is not pinned; ${still}.`);
      }
    });
}
