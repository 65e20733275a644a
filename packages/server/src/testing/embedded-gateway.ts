import { afterAll, beforeAll } from "vitest";
import { createRendererClient, type RendererClient } from "../renderer/http-renderer.ts";
import type { Child } from "../supervise/child.ts";
import { adapterAt } from "./adapters.ts";
import { startEmbedded, startRendererChild, type RunningEngine } from "./running-engine.ts";
import { serveGateway, type ServedGateway } from "./served-gateway.ts";

/** What stands while the tests of a `describe` run. */
export interface EmbeddedGateway {
  readonly renderer: RendererClient;
  /** With the policy `m@1`, a mild adapter. */
  readonly running: RunningEngine;
  readonly gateway: ServedGateway;
}

/** To be called in a `describe`: a gateway over the real renderer and the real worker, the same for all of its tests. */
export function useEmbeddedGateway(): EmbeddedGateway {
  let child: Child;
  let renderer: RendererClient;
  let running: RunningEngine;
  let gateway: ServedGateway;

  beforeAll(async () => {
    [child, running] = await Promise.all([startRendererChild(), startEmbedded()]);
    renderer = createRendererClient({ baseURL: () => child.baseURL, key: () => child.key });
    await running.engine.load(adapterAt("m@1", `${running.adapters}/mild`));
    gateway = await serveGateway(running.engine, renderer);
  });
  afterAll(async () => {
    await gateway?.close();
    await renderer?.close();
    await running?.stop();
    await child?.stop();
  });

  return {
    get renderer() {
      return renderer;
    },
    get running() {
      return running;
    },
    get gateway() {
      return gateway;
    },
  };
}
