import type { RolloutModel } from "@hone/client";
import { HoneError } from "@hone/core";

/** One chat request of a rollout, and the response's body. `failure` says in an error what was wanted. */
export async function askModel(
  model: RolloutModel,
  request: object,
  failure: string,
): Promise<string> {
  const { baseURL, apiKey, model: name, fetch } = model.connection();
  const response = await fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
    body: JSON.stringify({ model: name, ...request }),
    signal: model.signal,
  });
  const body = await response.text();
  if (response.ok) return body;
  throw new HoneError(`${failure}: ${body.slice(0, 300)}`, {
    ...{ code: "invalid_response", status: response.status },
  });
}
