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
  if (/don.?t know/i.test(String(answer["answer"]))) {
    return { score: 0.3, explanation: "It says that it does not know." };
  }
  const results = records
    .filter(({ role }) => role === "tool")
    .map(({ content }) => String(content));
  const read = results.map((text) => JSON.parse(text) as unknown).filter(isMail);
  const support = read.find(({ body }) => body.endsWith(`: ${String(answer["answer"])}`));
  if (!support) return { score: 0, explanation: "No mail that it read says so." };
  if (support.subject.replace(/^Re: /, "") !== `${project} ${attribute}`) {
    return { score: 0.05, explanation: "The mail is about something else." };
  }
  // A later mail of the thread, seen in the results and not read, may say something else.
  const hits = results
    .map((text) => JSON.parse(text) as unknown)
    .filter(Array.isArray)
    .flat() as {
    message_id: string;
    snippet: string;
  }[];
  const newest = hits.find(({ snippet }) => snippet === support.subject);
  if (newest?.message_id !== support.id) {
    return { score: 0.1, explanation: "A newer mail of this subject was not read." };
  }
  const cited = Array.isArray(answer["sources"]) && answer["sources"].includes(support.id);
  return cited
    ? { score: 1, explanation: "The newest mail says so, and is cited." }
    : { score: 0.75, explanation: "The newest mail says so, and is not cited." };
};

function callsOf(record: Shown | undefined): { name: string; args: Shown }[] {
  const calls = (record?.["tool_calls"] ?? []) as { name: string; arguments: string }[];
  return calls.map((call) => ({ name: call.name, args: JSON.parse(call.arguments) as Shown }));
}

function isMail(value: unknown): value is { id: string; subject: string; body: string } {
  return typeof value === "object" && value !== null && "body" in value;
}
