import type { ServerOptionsInForce } from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { adviceOn } from "./fit.ts";
import type { Facts } from "./facts.ts";
import { readMachine } from "./machine.ts";
import { optionsInForce } from "./options-in-force.ts";

/** Which options are in force, and which do not fit. For operators, and for `hone doctor`. */
export function optionRoutes(
  dataDir: string,
  rest: () => Promise<Omit<Facts, "machine">>,
): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/v1/options", async (c) => {
    const [machine, others] = await Promise.all([readMachine(dataDir), rest()]);
    const facts: Facts = { ...others, machine };
    return c.json({
      ...{ object: "hone.options", machine },
      options: optionsInForce(facts),
      advice: adviceOn(facts),
    } satisfies ServerOptionsInForce);
  });
  return app;
}
