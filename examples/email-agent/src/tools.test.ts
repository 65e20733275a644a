import { expect, it } from "vitest";
import { Mailbox } from "./mailbox.ts";
import { callTool, tools } from "./tools.ts";

const mailbox = new Mailbox([
  {
    ...{ id: "m1", date: "2026-01-05", subject: "Falcon room", from: "ann@x", to: ["bob@x"] },
    ...{ cc: [], bcc: [], body: "It is: B2" },
  },
]);

it("calls each tool, and says of a bad call what is wrong with it", () => {
  const call = (name: string, args: unknown) => callTool(mailbox, name, JSON.stringify(args));
  expect(call("search_emails", { keywords: ["Falcon"] })).toEqual({
    ...{ kind: "found", ids: ["m1"] },
    text: '[{"message_id":"m1","snippet":"Falcon room"}]',
  });
  expect(call("read_email", { message_id: "m1" })).toMatchObject({ kind: "read", found: true });
  expect(call("read_email", { message_id: "m2" })).toMatchObject({ kind: "read", found: false });
  const answer = { answer: "B2", sources: ["m1"] };
  expect(call("return_final_answer", answer)).toEqual({ kind: "answer", ...answer });
  expect(call("toString", {})).toMatchObject({ kind: "bad_tool" });
  expect(callTool(mailbox, "read_email", "{")).toMatchObject({ kind: "bad_arguments" });
  expect(call("search_emails", { keywords: ["a"], max_results: 11 })).toMatchObject({
    ...{ kind: "bad_arguments", text: expect.stringContaining("max_results") },
  });
  expect(call("search_emails", { keywords: ["a\0b"] })).toMatchObject({ kind: "bad_arguments" });
  expect(call("return_final_answer", { answer: 2 })).toMatchObject({ kind: "bad_arguments" });
  expect(tools.map((tool) => tool.function.name)).toEqual([
    ...["search_emails", "read_email", "return_final_answer"],
  ]);
});
