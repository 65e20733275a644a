import { HoneError, type AnthropicModel, type ModelEntry } from "@hone/core";

/** `GET /v1/models/{id}` as Anthropic has it. */
export function modelOf({ id, created }: ModelEntry): AnthropicModel {
  const created_at = new Date(created * 1000).toISOString();
  return { type: "model", id, display_name: id, created_at };
}

/** A page of `GET /v1/models`. Without a limit all stand on one. */
export function listModels(all: readonly ModelEntry[], query: Record<string, string>) {
  const { limit = "1000", after_id: after, before_id: before } = query;
  const most = Number(limit);
  if (!Number.isInteger(most) || most < 1 || most > 1000) {
    throw wrong("limit", "it is a whole number from 1 to 1000.");
  }
  const placeOf = (name: string, id: string): number => {
    const at = all.findIndex((model) => model.id === id);
    if (at < 0) throw wrong(name, "no model has this id. Take it from an earlier page.");
    return at;
  };
  const from = after === undefined ? 0 : placeOf("after_id", after) + 1;
  const to = before === undefined ? all.length : placeOf("before_id", before);
  const rest = all.slice(from, to);
  const page = before === undefined ? rest.slice(0, most) : rest.slice(-most);
  return {
    data: page.map(modelOf),
    has_more: page.length < rest.length,
    first_id: page[0]?.id ?? null,
    last_id: page.at(-1)?.id ?? null,
  };
}

function wrong(param: string, message: string): HoneError {
  return new HoneError(`${param}: ${message}`, { code: "invalid_request", param });
}
