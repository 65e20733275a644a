import { HoneError, wrongKind } from "@hone/core";

/** An http or https URL that can be asked: with no user and no password in it. */
export function requireURL(url: unknown, where = "baseURL"): URL {
  if (typeof url !== "string" && !(url instanceof URL)) {
    throw wrongKind(where, "a URL", url, "baseURL");
  }
  const text = String(url);
  const parsed = URL.canParse(text) ? new URL(text) : null;
  if (parsed && (parsed.username || parsed.password)) {
    // fetch takes no such URL, and says it whole in its error.
    throw badURL("baseURL has a user or a password in it. Leave them out, and pass apiKey.");
  }
  if (parsed?.protocol === "http:" || parsed?.protocol === "https:") return parsed;
  throw badURL(
    `"${text}" is not an http or https URL. Give one such as http://127.0.0.1:7777 or https://api.openai.com/v1.`,
  );
}

function badURL(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "baseURL" });
}

/** A server's origin and path prefix, with no trailing slash and without `/v1`. */
export function serverURLOf(url: URL): string {
  return url.origin + url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
}

/** `localhost` and 127.0.0.1 are one server; on `[::1]` another program may listen. */
export function originOf(url: string): string {
  return new URL(url).origin.replace(/\/\/localhost(?=:|$)/, "//127.0.0.1");
}
