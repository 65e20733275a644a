import { HoneError, serverOptionsSchema, type ServerOptionsInForce } from "@hone/core";
import type { Transport } from "@hone/transport";
import { table } from "../print.ts";

/** What the server says of its options; null of a server that does not say. */
export async function askOptions(
  transport: Transport,
  signal: AbortSignal,
): Promise<ServerOptionsInForce | null> {
  try {
    return await transport.json("GET", "/v1/options", serverOptionsSchema, { signal });
  } catch (error) {
    // Of a version before there was the route.
    if (HoneError.isInstance(error) && error.code === "not_found") return null;
    throw error;
  }
}

export function misfits({ advice }: ServerOptionsInForce): number {
  return advice.filter(({ verdict }) => verdict === "misfit").length;
}

/** A row for each option, and one more for each further thing that is said of it. */
export function optionTable({ options, advice }: ServerOptionsInForce): string {
  const words = { misfit: "DOES NOT FIT", hint: "look" };
  const rows = options.flatMap(({ option, value, given }) => {
    const said = advice.filter((one) => one.options[0] === option);
    const name = option === "--" ? "-- (for vLLM)" : option;
    const row = [name, value ?? "–", given ? "given" : "default"];
    if (said.length === 0) return [[...row, "ok", ""]];
    return said.map(({ verdict, options: [, ...others], message }, at) => {
      const note = others.length === 0 ? message : `${message} (also: ${others.join(", ")})`;
      return [...(at === 0 ? row : ["", "", ""]), words[verdict], note];
    });
  });
  const titles = ["OPTION", "IN FORCE", "FROM", "VERDICT", "NOTE"];
  return table(
    titles.map((title) => ({ title })),
    rows,
  );
}
