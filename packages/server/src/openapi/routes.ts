import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { openApiDocument } from "./document.ts";
import { pageHeaders, renderPage } from "./page.ts";

/** Where the page is: the one route that needs no key (docs/decisions/0006). */
export const docsPath = "/docs";

export function openApiRoutes(): Hono<AppEnv> {
  let page: Promise<string> | undefined;
  const app = new Hono<AppEnv>();
  app.get("/openapi.json", (c) => c.json(openApiDocument()));
  app.get(docsPath, async (c) => {
    page ??= renderPage(openApiDocument());
    return c.html(await page, 200, pageHeaders);
  });
  return app;
}
