/** An attempt as the judge was shown it. */
export interface ShownAttempt {
  id: string;
  /** The JSON records of the attempt, in order: messages, and what stands in for cut ones. */
  records: Record<string, unknown>[];
  /** The text of its last message; "" where it has none. */
  finalText: string;
}

export interface ShownPrompt {
  system: string;
  task: Record<string, unknown>[];
  tools: Record<string, unknown>[];
  /** In the order in which they were shown. */
  attempts: ShownAttempt[];
  /** The lines of the user's message that are within no fence. */
  outside: string[];
}

/**
 * Takes a ruler's prompt apart again, strictly: a fence that does not close, an unknown line within
 * one or an id that comes twice throws. It reads the first user message; a repair request comes later.
 */
export function readJudgePrompt(
  messages: readonly { role: string; content?: unknown }[],
): ShownPrompt {
  const text = (role: string): string => {
    const content = messages.find((message) => message.role === role)?.content;
    return typeof content === "string" ? content : "";
  };
  const lines = text("user").split("\n");
  const key = /^The key of this message is ([0-9a-f]{16})\.$/.exec(lines[0] ?? "")?.[1];
  if (!key) throw new Error("This is no prompt of the ruler: its first line names no key.");
  const fence = new RegExp(`^==== ${key} (task|tools|attempt ([0-9a-f]{8,})) (begins|ends) ====$`);
  const shown: ShownPrompt = {
    system: text("system"),
    task: [],
    tools: [],
    attempts: [],
    outside: [],
  };
  let open: { name: string; records: Record<string, unknown>[] } | null = null;
  for (const line of lines) {
    const [, name = "", id, edge] = fence.exec(line) ?? [];
    if (!name && open) open.records.push(JSON.parse(line) as Record<string, unknown>);
    else if (!name) shown.outside.push(line);
    else if (edge === "ends") {
      if (open?.name !== name) throw new Error(`"${name}" ends where it did not begin.`);
      open = null;
    } else {
      if (open) throw new Error(`"${name}" begins within "${open.name}".`);
      const records: Record<string, unknown>[] = [];
      open = { name, records };
      if (name === "task") shown.task = records;
      else if (name === "tools") shown.tools = records;
      else if (id && !shown.attempts.some((attempt) => attempt.id === id)) {
        shown.attempts.push({
          id,
          records,
          get finalText() {
            const content = records.at(-1)?.["content"];
            return typeof content === "string" ? content : "";
          },
        });
      } else throw new Error(`The attempt ${id ?? ""} comes twice.`);
    }
  }
  if (open) throw new Error(`"${open.name}" does not end.`);
  return shown;
}
