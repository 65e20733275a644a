import { stat } from "node:fs/promises";
import { Readable } from "node:stream";
import {
  engineTokenRequestSchema,
  HoneError,
  type EngineList,
  type RemovedEngine,
} from "@hone/core";
import { getConnInfo } from "@hono/node-server/conninfo";
import { Hono, type Context } from "hono";
import { givenKeys, type KeyRealm } from "../../http/auth.ts";
import type { AppEnv } from "../../http/env.ts";
import { readJson } from "../../http/json.ts";
import { readQuery } from "../../http/query.ts";
import { sha256Schema } from "../../ports/live-set.ts";
import type { JoinedEngine, JoinedEngines } from "./joined-engines.ts";
import { badToken } from "./registry.ts";
import {
  adapterQuerySchema,
  announceSchema,
  drainSchema,
  engineBodyLimit,
  enginePaths as paths,
  joinSchema,
  liveQuerySchema,
  longestPollMs,
  reportSchema,
  type BaseIdentity,
  type BucketURL,
  type Joined,
  type LiveAnswer,
  type ServedBaseOnWire,
} from "./wire.ts";

/** Whoever comes with a token: no engine can have this name. */
const joining = "(joining)";

/**
 * Below `/engine/` a join token opens one route and an engine's key the others, and that one again for an engine that has
 * joined; the server's key opens none.
 */
export function engineRealm({ registry }: Pick<JoinedEngines, "registry">): KeyRealm {
  return {
    prefix: paths.prefix,
    identify(path, given) {
      for (const one of given) {
        if (path === paths.join) {
          if (registry.isToken(one)) return joining;
        }
        const name = registry.nameOf(one);
        if (name !== null) return name;
      }
      if (path === paths.join) throw badToken();
      throw new HoneError(
        "This is no engine's key, or the engine was removed. It can join again with a new token: `hone engines token`.",
        { code: "invalid_api_key" },
      );
    },
  };
}

/** For operators: tokens, the list of engines, and removal. */
export function operatorEngineRoutes(joined: JoinedEngines): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/v1/engines/tokens", async (c) => {
    joined.requireOpen();
    const { expiresIn } = await readJson(c, engineTokenRequestSchema);
    return c.json(joined.registry.issue(expiresIn * 1000), 201);
  });
  app.get("/v1/engines", (c) =>
    c.json({ object: "list", data: joined.list() } satisfies EngineList),
  );
  app.delete("/v1/engines/:name", async (c) => {
    const name = c.req.param("name");
    joined.remove(name);
    return c.json({ object: "hone.engine", name, removed: true } satisfies RemovedEngine);
  });
  return app;
}

/** For the sidecars of engines that joined. */
export function joinedEngineRoutes(joined: JoinedEngines): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.use(`${paths.prefix}*`, async (c, next) => {
    c.set("bodyLimit", engineBodyLimit);
    await next();
  });

  app.post(paths.join, async (c) => {
    joined.requireOpen();
    const { name, key } = await readJson(c, joinSchema);
    // It has joined, and did not hear of it.
    const by = c.get("keyId");
    const known = by === joining ? joined.registry.nameOf(key) : by;
    if (known !== null) return c.json({ name: known } satisfies Joined);
    const token = givenKeys(c).find((one) => joined.registry.isToken(one));
    if (token === undefined) throw badToken();
    const answer: Joined = joined.registry.redeem(token, key, name);
    joined.add(answer.name);
    return c.json(answer, 201);
  });

  app.get(paths.base, (c) => {
    joined.requireOpen();
    return c.json(joined.base());
  });

  app.post(paths.announce, async (c) => {
    joined.requireOpen();
    const announcement = await readJson(c, announceSchema);
    await caller(c).announced(announcement, getConnInfo(c).remote.address);
    return c.json({ known: true });
  });

  app.get(paths.live, async (c) => {
    const { boot, after } = readQuery(c, liveQuerySchema);
    const one = caller(c);
    const { driver } = one;
    if (driver.generation === after && one.boot === boot) {
      const time = AbortSignal.timeout(longestPollMs);
      await driver.changed(AbortSignal.any([c.req.raw.signal, joined.stopping, time]));
    }
    const answer: LiveAnswer =
      one.boot === boot
        ? {
            ...{ known: true, generation: driver.generation, base: identityOf(joined.base()) },
            probeTolerance: joined.probeTolerance,
            adapters: driver.wanted(),
          }
        : { known: false };
    return c.json(answer);
  });

  app.get(`${paths.adapters}/:sha256`, async (c) => {
    const { name, sha256, file } = wantedFile(c);
    const { bucket: why } = readQuery(c, adapterQuerySchema);
    const size = (await stat(file).catch(() => null))?.size;
    if (size === undefined) throw notWanted();
    if (why !== undefined) joined.bucket?.missed(sha256, name, why);
    const stream = Readable.toWeb(Readable.from(caller(c).driver.send(sha256))) as ReadableStream;
    return c.body(stream, 200, {
      "content-type": "application/octet-stream",
      "content-length": String(size),
    });
  });

  app.get(`${paths.adapters}/:sha256/bucket`, async (c) => {
    const url = (await joined.bucket?.urlOf(wantedFile(c).sha256)) ?? null;
    return c.json({ url } satisfies BucketURL);
  });

  app.post(paths.report, async (c) => {
    const report = await readJson(c, reportSchema);
    const one = caller(c);
    const known = one.boot === report.boot;
    if (known) one.reported(report);
    return c.json({ known });
  });

  app.post(paths.drain, async (c) => {
    const { boot } = await readJson(c, drainSchema);
    const one = caller(c);
    if (one.boot === boot) one.drain();
    return c.json({ inFlight: one.boot === boot ? one.driver.inFlight : 0 });
  });

  app.post(paths.leave, async (c) => {
    joined.remove(caller(c).name);
    return c.json({ known: false });
  });

  function caller(c: Context<AppEnv>): JoinedEngine {
    const one = joined.find(c.get("keyId"));
    one.heard();
    return one;
  }

  /** An engine gets no other weights than those that it shall serve. */
  function wantedFile(c: Context<AppEnv>): { name: string; sha256: string; file: string } {
    const { name, driver } = caller(c);
    const sha256 = sha256Schema.safeParse(c.req.param("sha256")).data;
    const file = sha256 === undefined ? null : driver.fileOf(sha256);
    if (sha256 === undefined || file === null) throw notWanted();
    return { name, sha256, file };
  }
  return app;
}

function identityOf({ name, fingerprint }: ServedBaseOnWire): BaseIdentity {
  return { name, fingerprint };
}

function notWanted(): HoneError {
  return new HoneError("This engine shall serve no adapter with this digest.", {
    code: "not_found",
  });
}
