import { HoneError } from "@hone/core";
import type { HeldFormat, JsonFormat } from "../ports/engine.ts";
import type { Renderer, RendererInfo } from "../ports/renderer.ts";
import { isHeld, type Ask, type ChatAsk } from "./ask.ts";

/** What engines hold the answer to: its format, calls that have to be, or either of them. */
export async function heldTo(renderer: Renderer, ask: ChatAsk): Promise<HeldFormat | null> {
  const format = await checkedFormat(renderer, ask.format);
  if (!ask.callable || !isHeld(ask)) return format;
  const source = await renderer.callGrammar({
    tools: ask.callable,
    single: ask.oneCall === true,
    final: ask.mustCall ? null : schemaOf(format),
  });
  return { type: "grammar", source };
}

/** The format as engines take it. */
async function checkedFormat(
  renderer: Renderer,
  format: JsonFormat | null,
): Promise<JsonFormat | null> {
  if (format?.type !== "json_schema") return format;
  return { ...format, schema: await renderer.checkSchema(format.schema) };
}

function schemaOf(format: JsonFormat | null): Readonly<Record<string, unknown>> | null {
  return format && (format.type === "json_schema" ? format.schema : { type: "object" });
}

/**
 * An answer that may call once ends with its first call: that is a stop, as a stop string is, and changes nothing about
 * what is sampled before it. Where a grammar holds the answer, the grammar says it.
 */
export function endsOfOneCall(
  ask: Ask,
  format: HeldFormat | null,
  { callEnd, name }: Pick<RendererInfo, "callEnd" | "name">,
): { ids: readonly number[]; strings: readonly string[] } {
  if (ask.kind === "text" || !ask.oneCall || !ask.callable || format)
    return { ids: [], strings: [] };
  if (!callEnd) {
    throw unsupported(
      `the renderer ${name} of this base has no mark that ends a call, so an answer may hold several. Leave it out.`,
    );
  }
  if (callEnd.id !== null) return { ids: [callEnd.id], strings: [] };
  if (ask.stop.length > 0) {
    throw unsupported(
      "a call of this base ends with a text, which does not go with `stop`. Leave one of them out.",
    );
  }
  return { ids: [], strings: [callEnd.text] };
}

function unsupported(message: string): HoneError {
  return new HoneError(`parallel_tool_calls: ${message}`, {
    code: "unsupported_parameter",
    param: "parallel_tool_calls",
  });
}
