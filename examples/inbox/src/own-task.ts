import { splitScenarios, type RolloutModel } from "@hone/client";
import OpenAI from "openai";

// A task of one's own is one file: scenarios, a rollout, a reward.
//   npm run quickstart -- inbox --task examples/inbox/src/own-task.ts

const wordings = [
  "Order {order} has left our house; invoice {invoice} follows.",
  "With invoice {invoice} we thank you for order {order}.",
  "Invoice {invoice} is paid, so {order} will be packed today.",
  "We could not pack {order} yet. Please settle {invoice} first.",
  "{order} is on its way, and {invoice} is in the parcel.",
  "Your payment of {invoice} has come; {order} is ready.",
];
const mails = wordings.flatMap((wording) =>
  Array.from({ length: 40 }, (_, i) => {
    const order = `K-${1000 + ((i * 7919) % 9000)}`;
    const text = wording
      .replace("{order}", order)
      .replace("{invoice}", `R-${1000 + ((i * 104_729) % 9000)}`);
    return { wording, text, order };
  }),
);
type Mail = (typeof mails)[number];

// Whole wordings are held out, so that the score is about reading and not about remembering.
export const { train, heldOut } = splitScenarios(mails, { by: (mail) => mail.wording });
export const slice = (mail: Mail) => mail.wording;

export async function rollout(model: RolloutModel, { text, order }: Mail, temperature: number) {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const content = `${text}\n\nWhat is the number of the order? Answer with the number alone.`;
  const completion = await client.chat.completions.create(
    { model: connection.model, messages: [{ role: "user", content }], max_tokens: 24, temperature },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  return answer === order ? 1 : answer.includes(order) ? 0.5 : 0;
}
