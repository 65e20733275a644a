import {
  HoneError,
  type OperationEvent,
  operationEventSchema,
  operationInfoSchema,
  parseModelRef,
  policyDetailSchema,
} from "@hone/core";
import type { Command } from "commander";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { connect, serverCommand, type Connection, type ServerFlags } from "./connection.ts";
import { bytes, fields, number, printJson, table, time } from "./print.ts";
import { rolloutsOf } from "./rollout-pages.ts";
import { inspectRollout } from "./transcript.ts";

interface InspectFlags extends ServerFlags {
  tokens?: boolean | undefined;
}

export function inspectCommand(): Command {
  return serverCommand("inspect")
    .description("Shows an operation, a rollout or a policy")
    .argument("<what>", "an operation's id, a rollout's id, or model@N")
    .option("--tokens", "of a rollout: every sampled token with its id and logprob")
    .addHelpText(
      "after",
      `
Examples:
  hone inspect op_1f6c…             a step: its events, groups and metrics, the rollouts it trained
  hone inspect ro_77ab… --tokens    a rollout's transcript, token by token
  hone inspect agent-2048@12        a policy: where it came from, its files, its evaluation`,
    )
    .action(async (what: string, flags: InspectFlags) => {
      const connection = connect(flags);
      const ref = what.includes("@") ? parseModelRef(what) : null;
      if (ref !== null && ref.step !== null)
        await inspectPolicy(connection, ref.model, ref.step, flags);
      else if (what.startsWith("op_")) await inspectOperation(connection, what, flags);
      else
        await inspectRollout(connection, what, flags).catch((error: unknown) =>
          notThere(what, error),
        );
    });
}

/** Users may choose a rollout's id, so any word was looked for as a rollout first. It may still mean something else. */
function notThere(what: string, error: unknown): never {
  if (
    what.startsWith("ro_") ||
    !HoneError.isInstance(error) ||
    error.code !== "rollout_not_found"
  ) {
    throw error;
  }
  const hint = what.startsWith("grp_")
    ? `The rollouts of a group: \`hone rollouts <model> --group ${what}\`.`
    : "`hone models` lists the models, `hone runs <model>` its steps, `hone rollouts <model>` its rollouts.";
  throw new HoneError(
    `"${what.slice(0, 100)}" is neither an operation (op_…) nor a rollout (ro_…) nor a policy (model@N) of this server. ${hint}`,
    { code: "not_found", cause: error },
  );
}

async function inspectPolicy(
  connection: Connection,
  model: string,
  step: number,
  flags: InspectFlags,
): Promise<void> {
  const policy = await connection.get(policyDetailSchema, `/v1/models/${model}/policies/${step}`);
  if (flags.json) {
    printJson(policy);
    return;
  }
  const { evaluated, files } = policy;
  console.log(
    fields([
      ["policy", policy.id],
      ["base", policy.base],
      ["lora", `r ${policy.lora.r}, alpha ${policy.lora.alpha}`],
      ["made by", policy.operationId],
      ["from", policy.parent === null ? "–" : `${model}@${policy.parent}`],
      ["created", time(policy.createdAt)],
      ["in engine", policy.live ? "yes" : "no"],
      [
        "kept as",
        policy.removedAt === null
          ? policy.keptAs.join(", ") || "–"
          : `removed ${time(policy.removedAt)}`,
      ],
      [
        "evaluated",
        evaluated.rollouts === 0
          ? "–"
          : `mean reward ${number(evaluated.reward)} of ${evaluated.rollouts} rollouts`,
      ],
      ["folder", policy.checkpoint ?? "–"],
      ...Object.entries(files).map(([name, file]) => [`  ${name}`, bytes(file.bytes)] as const),
    ]),
  );
  const metrics = Object.entries(policy.metrics);
  if (metrics.length > 0)
    console.log(`\n${fields(metrics.map(([name, value]) => [name, number(value)]))}`);
}

async function inspectOperation(
  connection: Connection,
  id: string,
  flags: InspectFlags,
): Promise<void> {
  const operation = await connection.get(operationInfoSchema, `/v1/operations/${id}`);
  const events = await eventsOf(
    connection,
    id,
    operation.status === "queued" || operation.status === "running",
  );
  const { rollouts } = await rolloutsOf(connection, operation.model, { operation: id });
  if (flags.json) {
    printJson({ operation, events, rollouts });
    return;
  }
  const { result, error } = operation;
  console.log(
    fields([
      ["operation", operation.id],
      ["model", operation.model],
      ["type", operation.type],
      ["status", error ? `${operation.status}: ${error.message}` : operation.status],
      [
        "step",
        `${operation.fromStep ?? "–"}${result && result.step !== operation.fromStep ? ` → ${result.step}` : ""}`,
      ],
      ["created", time(operation.createdAt)],
    ]),
  );
  const begin = events[0]?.at ?? operation.createdAt;
  console.log("");
  for (const event of events) {
    console.log(
      `${`+${((event.at - begin) / 1000).toFixed(2)} s`.padStart(10)}  ${describe(event)}`,
    );
  }
  if (!result || !("groups" in result)) return;
  if (result.groups.length > 0) {
    console.log(
      `\n${table(
        [
          { title: "GROUP" },
          { title: "TRAINED", right: true },
          { title: "REASON" },
          { title: "LEFT OUT" },
        ],
        result.groups.map(({ id: group, reason, trainedRollouts, dropped, masked = {} }) => [
          group,
          String(trainedRollouts),
          reason ?? "",
          [
            ...Object.entries(dropped).map(([why, count]) => `${count} ${why}`),
            ...Object.entries(masked).map(([why, count]) => `${count} answers ${why}`),
          ].join(", "),
        ]),
      )}`,
    );
  }
  console.log(
    `\n${fields(Object.entries(result.metrics).map(([name, value]) => [name, number(value)]))}`,
  );
  if (rollouts.length > 0) {
    console.log(
      `\n${table(
        [
          { title: "ROLLOUT" },
          { title: "GROUP" },
          { title: "POLICY" },
          { title: "COMPLETIONS", right: true },
          { title: "STATUS" },
        ],
        rollouts.map(({ id: rollout, group, policy, completions, status }) => [
          rollout,
          group ?? "",
          policy ?? "",
          String(completions),
          status,
        ]),
      )}`,
    );
  }
}

/** The events until now. The stream of an operation that is under way does not end: it is left when it falls silent. */
async function eventsOf(
  connection: Connection,
  id: string,
  underWay: boolean,
): Promise<OperationEvent[]> {
  const response = await connection.open(`/v1/operations/${id}/events`);
  if (!response.body)
    throw new HoneError("The server sent no events.", { code: "invalid_response" });
  const reader = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  const events: OperationEvent[] = [];
  for (;;) {
    const silence = new Promise<"silent">((done) => {
      if (underWay) setTimeout(() => done("silent"), 300);
    });
    const next = await Promise.race([reader.read(), silence]);
    if (next === "silent" || next.done) break;
    events.push(operationEventSchema.parse(JSON.parse(next.value.data)));
  }
  await reader.cancel();
  return events;
}

export function describe(event: OperationEvent): string {
  switch (event.type) {
    case "started":
      return `started from step ${event.step}`;
    case "filtered": {
      const reasons = Object.entries(event.reasons).map(([reason, count]) => `${count} ${reason}`);
      const dropped = reasons.length > 0 ? `; dropped: ${reasons.join(", ")}` : "";
      return `${event.trainableRollouts} rollouts train, ${event.tokens} tokens${dropped}`;
    }
    case "stage":
      return `${event.stage}: ${event.seconds.toFixed(3)} s`;
    case "progress":
      return `micro-batch ${event.done} of ${event.total}, ${event.tokens} tokens`;
    case "committed":
      return `step ${event.step} is learnt: ${event.checkpoint}`;
    case "published":
      return `${event.policy} is served`;
    case "warning":
      return `warning: ${event.message}`;
    case "ended":
      break;
  }
  const { status, error } = event.operation;
  return error ? `${status}: ${error.message}` : status;
}
