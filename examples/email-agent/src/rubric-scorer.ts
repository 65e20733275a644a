import type { Scorer } from "@hone/ruler/testing";

// What a judge with the support-mail rubric would look at, as a program: for tests and offline runs. It sees what a
// judge sees, the attempt alone, and knows no right answer.

type Shown = Record<string, unknown>;

/** Scores by whether the answer stands in a mail that was read, is about the question, and is cited. */
export const followTheRubric: Scorer = ({ records }, { task }) => {
  const asked = JSON.stringify(task.findLast(({ role }) => role === "user") ?? "");
  const [, attribute, project] = /the (\w+) of (\w+)\?/.exec(asked) ?? [];
  const answer = callsOf(records.at(-1)).find(({ name }) => name === "return_final_answer")?.args;
  if (answer === undefined) return { score: 0, explanation: "It ends without an answer." };
  const results = records
    .filter(({ role }) => role === "tool")
    .map(({ content }) => JSON.parse(String(content)) as unknown);
  const hits = results.filter(Array.isArray).flat() as { message_id: string; snippet: string }[];
  const isAskedFor = (subject: string) =>
    subject.replace(/^Re: /, "") === `${project} ${attribute}`;
  if (/don.?t know/i.test(String(answer["answer"]))) {
    // Honest; and of two attempts that do not get there, the one that came closer scores higher.
    const close = hits.some(({ snippet }) => isAskedFor(snippet));
    const amiss = results.some(isRefusal);
    return {
      score: 0.15 + (close ? 0.05 : 0) - (amiss ? 0.05 : 0),
      explanation: `It says that it does not know; its search ${close ? "shows" : "misses"} the mails about this${amiss ? ", and a call of it was refused" : ""}.`,
    };
  }
  const read = results.filter(isMail);
  const support = read.find(({ body }) => body.endsWith(`: ${String(answer["answer"])}`));
  if (!support) return { score: 0, explanation: "No mail that it read says so." };
  if (!isAskedFor(support.subject)) {
    return { score: 0.05, explanation: "The mail is about something else." };
  }
  // A later mail of the thread, seen in the results and not read, may say something else.
  const newest = hits.find(({ snippet }) => snippet === support.subject);
  if (newest?.message_id !== support.id) {
    return { score: 0.1, explanation: "A newer mail of this subject was not read." };
  }
  // As short as the matter allows: neither calls that were refused nor sources that say nothing.
  const calls = records.flatMap((record) => (record["tool_calls"] ?? []) as unknown[]).length;
  const extra = calls > results.length + 1 || results.some(isRefusal) ? 0.1 : 0;
  const sources = Array.isArray(answer["sources"]) ? answer["sources"] : [];
  if (!sources.includes(support.id)) {
    return { score: 0.75 - extra, explanation: "The newest mail says so, and is not cited." };
  }
  return sources.length > 1
    ? { score: 0.9 - extra, explanation: "The newest mail says so, and is cited among others." }
    : { score: 1 - extra, explanation: "The newest mail says so, and is cited." };
};

function callsOf(record: Shown | undefined): { name: string; args: Shown }[] {
  const calls = (record?.["tool_calls"] ?? []) as { name: string; arguments: string }[];
  return calls.flatMap((call) => {
    try {
      return [{ name: call.name, args: JSON.parse(call.arguments) as Shown }];
    } catch {
      return [];
    }
  });
}

function isRefusal(value: unknown): boolean {
  return typeof value === "object" && value !== null && "error" in value;
}

function isMail(value: unknown): value is { id: string; subject: string; body: string } {
  return typeof value === "object" && value !== null && "body" in value;
}
