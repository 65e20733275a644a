import { splitScenarios } from "@hone/client";
import { defineTask } from "@hone/client/run";
import OpenAI from "openai";

// Mails of a shop. The agent is to find the number of the order, not that of the invoice.
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

export default defineTask({
  // Whole wordings are held out, so that the score is about reading and not about remembering.
  ...splitScenarios(mails, { by: (mail) => mail.wording }),
  slice: (mail) => mail.wording,
  async rollout(model, { text, order }, { temperature, answerTokens }) {
    const { model: name, ...connection } = model.connection(); // this rollout's own base URL
    const client = new OpenAI(connection);
    const content = `${text}\n\nWhat is the number of the order? Answer with the number alone.`;
    const completion = await client.chat.completions.create(
      {
        ...{ model: name, temperature, max_tokens: answerTokens },
        messages: [{ role: "user", content }],
      },
      { signal: model.signal },
    );
    const answer = completion.choices[0]?.message.content ?? "";
    return answer === order ? 1 : answer.includes(order) ? 0.5 : 0;
  },
  options: {
    steps: 24,
    groupSize: 8,
    answerTokens: 24,
    learningRate: 4e-4,
    schedule: { type: "linear" },
  },
});
