import { messageText, type Trajectory } from "@hone/core";

type Told = Pick<Trajectory, "messages">;

/**
 * 1 for a key that was found, less .1 for each call that found nothing: the same code for every framework, whatever
 * words it puts around an error.
 */
export function reward({ messages }: Told): number {
  const results = messages
    .filter(({ role }) => role === "tool")
    .map((m) => messageText(m as never));
  const failed = results.filter((text) => text !== "a chest" && text !== "a key").length;
  return (results.includes("a key") ? 1 : 0) - 0.1 * failed;
}

/** What kinds of messages a conversation has, in order. */
export function shapeOf({ messages }: Told): string[] {
  return messages.map((message) => {
    if (message.role !== "assistant") return message.role === "developer" ? "system" : message.role;
    return message.tool_calls?.length ? `${message.tool_calls.length} calls` : "answer";
  });
}
