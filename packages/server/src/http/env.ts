import type { HttpBindings } from "@hono/node-server";

/** What every request carries once it has passed the guard (auth.ts). */
export interface AppEnv {
  /** Node's own request and response; absent under `app.request()`. */
  Bindings: Partial<HttpBindings>;
  Variables: {
    /** Who owns what this request makes: the id of the key, not the key. */
    keyId: string;
    requestId: string;
    /** Overrides the limit of a JSON body, in bytes. */
    bodyLimit?: number | undefined;
    /** Overrides the time that a body may take, whatever its size. @unit ms */
    bodyMs?: number | undefined;
  };
}
