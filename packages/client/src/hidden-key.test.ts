import { inspect } from "node:util";
import OpenAI from "openai";
import { afterEach, describe, expect, it } from "vitest";
import { ComparisonModel } from "./rollouts/comparison-model.ts";
import { resolveSettings } from "./connection-settings.ts";
import { GatherError } from "./rollouts/gather-error.ts";
import { Hone } from "./hone.ts";
import { gatherOne, putModel, rolloutRoutes, startRouteServer } from "./testing/route-server.ts";
import type { RouteServer } from "./testing/route-server.ts";

const key = "the-key";
let server: RouteServer | undefined;
afterEach(() => server?.close());

/** Everything that a console, a log or a debugger's print would show. */
function printed(value: unknown): string {
  return [
    inspect(value),
    inspect(value, {
      depth: Infinity,
      showHidden: true,
      maxArrayLength: null,
      maxStringLength: null,
    }),
    inspect(value, { depth: Infinity, showHidden: true, customInspect: false }),
    inspect([{ value }], { depth: 0 }),
    JSON.stringify(value) ?? "",
    JSON.stringify({ nested: [value] }),
    String(value),
  ].join("\n");
}

describe("a key", () => {
  it("is in nothing of ours that may be printed", async () => {
    const { routes } = rolloutRoutes();
    server = await startRouteServer(routes);
    const hone = server.hone();
    const model = await hone.model({ name: "m" });
    const shown: unknown[] = [hone, model, model.at(0), model.transport];
    shown.push(new ComparisonModel({ baseURL: `${server.url}/v1`, apiKey: key, model: "m" }));
    shown.push(resolveSettings({ baseURL: server.url, apiKey: key }));
    const groups = await gatherOne(
      model,
      async (m) => {
        const connection = m.connection();
        const { model: name, ...rest } = connection;
        shown.push(m, connection, Object.freeze(m.connection()), { name, connection });
        // A copy is the user's own; a console shows no key of it either.
        expect(inspect(rest, { depth: Infinity })).not.toContain(key);
        expect(inspect({ ...connection }, { depth: Infinity })).not.toContain(key);
        for (const given of [connection, rest, { ...connection }]) {
          expect(given.apiKey).toBe(key);
          const client = new OpenAI(given);
          await client.chat.completions.create({
            model: name,
            messages: [{ role: "user", content: "x" }],
          });
        }
        return 1;
      },
      [1],
    );
    shown.push(groups, model.startTrain(groups));
    for (const one of shown) expect(printed(one)).not.toContain(key);
    expect(printed(shown[5])).toContain("[hidden]");
    for (const { headers } of server.received) {
      expect(headers.authorization).toBe(`Bearer ${key}`);
    }
    for (const one of [model, model.at(0)])
      expect(() => structuredClone(one)).toThrow(/could not be cloned/);
  });

  it("is in no error, whatever an agent's library hangs on what it throws", async () => {
    const { routes } = rolloutRoutes();
    server = await startRouteServer(routes);
    const model = await server.hone().model({ name: "m" });
    const throwing = (error: unknown) => () => {
      throw error;
    };
    const inAxios = Object.assign(new Error("Request failed"), {
      config: { headers: { Authorization: `Bearer ${key}` } },
      code: "ERR_BAD_REQUEST",
    });
    const cases: unknown[] = [
      inAxios,
      new Error("outer", { cause: inAxios }),
      Object.assign(new Error("x"), { request: new Request("http://h", { headers: { k: key } }) }),
      Object.assign(new Error("x"), { init: new Map([["h", new Headers({ "x-api-key": key })]]) }),
      new Error(`bad header Bearer ${key}`),
      new AggregateError([inAxios], "several"),
      { apiKey: key },
      `no ${key}`,
    ];
    for (const error of cases) {
      const failure = await gatherOne(model, throwing(error), [1]).catch(
        (thrown: unknown) => thrown,
      );
      if (!(failure instanceof GatherError)) throw failure;
      expect(printed(failure)).not.toContain(key);
      expect(printed(failure.groups)).not.toContain(key);
    }
    expect(JSON.stringify(server.received.map(({ body }) => body ?? null))).not.toContain(key);
    const plain = new TypeError("mine");
    const kept = await gatherOne(model, throwing(plain), [1]).catch((thrown: any) => thrown.cause);
    expect(kept).toBe(plain);
  });

  it("is in no error of a fetch of one's own", async () => {
    const failing = (async (_: unknown, init?: RequestInit) => {
      throw Object.assign(new Error(`refused ${new Headers(init?.headers).get("authorization")}`), {
        init,
      });
    }) as typeof globalThis.fetch;
    const hone = new Hone({
      baseURL: "http://127.0.0.1:9",
      apiKey: key,
      fetch: failing,
      maxRetries: 0,
    });
    const error = await hone.model({ name: "m" }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "connection_failed" });
    expect(printed(error)).not.toContain(key);
    expect(inspect((error as Error).cause)).toContain("refused");
  });

  it.each(["sk-\nsecret", "sk secret", "schlüssel-secret", "", 5, null, Promise.resolve("secret")])(
    "that no header can hold is refused and not quoted: %o",
    async (apiKey) => {
      server = await startRouteServer([putModel]);
      const environment = { HONE_API_KEY: apiKey === null ? "sk\u0000secret" : undefined };
      const given = { baseURL: server.url, apiKey: apiKey as string };
      let error: unknown;
      try {
        resolveSettings(given, environment);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toMatchObject({ code: "invalid_config", param: "apiKey" });
      expect(printed(error)).not.toContain("secret");
    },
  );
});
