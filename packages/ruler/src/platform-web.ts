import type { Platform } from "./platform.ts";

let secret: string | undefined;

/** A browser, a worker, any place without a disk: keys come from the call, the secret lives as long as the page. */
export const platform: Platform = {
  environment: () => undefined,
  installSecret() {
    secret ??= Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) =>
      byte.toString(16).padStart(2, "0"),
    ).join("");
    return Promise.resolve(secret);
  },
  honeServer: () => ({
    environment: {},
    announced: { server: null, absence: "No Hone server was found" },
  }),
  answerStore: () => null,
};
