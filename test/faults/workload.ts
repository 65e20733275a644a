import { gather, Hone, HoneError, type Model, type OperationEvent } from "@hone/client";
import { playChat } from "./agent.ts";
import { modelName, trainOptions, type Template } from "./template.ts";

/** What a client had of its run. */
export interface Workload {
  operation: string;
  /** In the order in which they came. */
  events: OperationEvent[];
  rollouts: string[];
  /** The answers that the agent got. */
  received: string[];
  /** The error of the first attempt, where the step had to be asked for again. */
  refusedWith: string | null;
}

/** Enough for the time in which a killed server comes back. */
const maxRetries = 12;

/** An agent plays two rollouts, and the template's groups are trained. */
export async function runWorkload(
  server: { url: string; key: string },
  template: Template,
): Promise<Workload> {
  const hone = new Hone({ baseURL: server.url, apiKey: server.key, maxRetries });
  const model = await hone.model({ name: modelName });
  const received: string[] = [];
  const [group] = await gather(model, playChat(received), [{ word: "loud" }], { groupSize: 2 });
  const rollouts = group?.trajectories.flatMap(({ rolloutId }) => rolloutId ?? []) ?? [];
  const work = { rollouts, received };
  try {
    return { ...work, ...(await train(model, template, "trial")), refusedWith: null };
  } catch (error) {
    if (!HoneError.isInstance(error) || error.code !== "disk_full") throw error;
    // There is room again, and the step that failed has kept nothing: not even its rollouts.
    const again = await train(model, template, "trial-again");
    return { ...work, ...again, refusedWith: error.code };
  }
}

async function train(
  model: Model,
  template: Template,
  clientToken: string,
): Promise<Pick<Workload, "operation" | "events">> {
  const handle = model.startTrain(template.groups, { ...trainOptions, clientToken });
  const events: OperationEvent[] = [];
  for await (const event of handle) events.push(event);
  await handle.result;
  const last = events.at(-1);
  if (last?.type !== "ended") throw new Error("the events have no end");
  return { operation: last.operation.id, events };
}
