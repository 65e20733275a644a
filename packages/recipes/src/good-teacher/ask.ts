import type { RolloutModel } from "@hone/client";
import { HoneError } from "@hone/core";

/** One request of a rollout. Its answer is in the ledger. */
export async function ask(model: RolloutModel, request: object): Promise<void> {
  const { baseURL, apiKey, model: name, fetch } = model.connection();
  const response = await fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
    body: JSON.stringify({ model: name, ...request }),
    signal: model.signal,
  });
  const body = await response.text();
  if (response.ok) return;
  throw new HoneError(`The policy gave no answer: ${body.slice(0, 300)}`, {
    ...{ code: "invalid_response", status: response.status },
  });
}
