// A harness like any other: it knows only its environment and its folder, and keeps its own loop.
import { readFileSync, writeFileSync } from "node:fs";

const { OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL } = process.env;
const messages = [{ role: "user", content: readFileSync("question.txt", "utf8") }];
for (let turn = 0; turn < 3; turn++) {
  const response = await fetch(`${OPENAI_BASE_URL}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${OPENAI_API_KEY}`, "content-type": "application/json" },
    body: JSON.stringify({ model: OPENAI_MODEL, messages, max_tokens: 8 }),
  });
  if (!response.ok) throw new Error(await response.text());
  const { choices } = await response.json();
  messages.push(choices[0].message, { role: "user", content: "Go on." });
}
writeFileSync("answers.json", JSON.stringify(messages.filter(({ role }) => role === "assistant")));
