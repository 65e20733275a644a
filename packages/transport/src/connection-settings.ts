export type Fetch = typeof globalThis.fetch;

export interface ConnectionSettings {
  /** The server's origin and path prefix, with no trailing slash and without `/v1`. */
  serverURL: string;
  apiKey: string;
  fetch: Fetch;
  /** How often a request is sent again after 408, 429, 5xx or a lost connection. */
  maxRetries: number;
  /** Limit of one request, event streams excepted. @unit ms */
  timeoutMs: number;
}
