import { HoneError } from "@hone/core";
import type { Platform } from "../platform.ts";

export interface HoneServer {
  /** Without `/v1`. */
  url: string;
  apiKey: string;
}

/** Finds the server as `new Hone()` does: what is given, the environment, else the server of this machine. */
export async function findHoneServer(
  platform: Platform,
  wanted: { baseURL?: string | undefined; apiKey?: string | undefined },
  /** Who needs it, for messages. */
  label: string,
): Promise<HoneServer> {
  const local = await platform.localServer();
  const url = wanted.baseURL ?? platform.environment("HONE_URL") ?? local?.url;
  if (!url) {
    throw new HoneError(
      `No Hone server was found for ${label}. Start one with \`npx @hone/server serve\`, or set HONE_URL and HONE_API_KEY.`,
      { code: "invalid_config", param: "baseURL" },
    );
  }
  const parsed = parseURL(url);
  // The key of this machine's server opens that one; another has no business seeing it.
  const localKey = local && originOf(local.url) === originOf(url) ? local.key : undefined;
  const apiKey = wanted.apiKey || environmentKey(platform, url) || localKey;
  if (apiKey) {
    const path = parsed.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
    return { url: parsed.origin + path, apiKey };
  }
  throw new HoneError(
    `No API key for ${label} at ${parsed.origin}. Pass apiKey, or set HONE_URL to that server and HONE_API_KEY to what it printed.`,
    { code: "invalid_config", param: "apiKey" },
  );
}

/** HONE_API_KEY is the key of the server that HONE_URL names: where it names one, no other gets to see it. */
function environmentKey(platform: Platform, url: string): string | undefined {
  const home = platform.environment("HONE_URL");
  return home === undefined || originOf(home) === originOf(url)
    ? platform.environment("HONE_API_KEY")
    : undefined;
}

function originOf(url: string): string {
  return parseURL(url).origin.replace("//localhost", "//127.0.0.1");
}

export function parseURL(url: string): URL {
  try {
    const parsed = new URL(url);
    if (parsed.username || parsed.password) {
      // fetch takes no such URL, and says it whole in its error.
      throw new HoneError(
        "baseURL has a user or a password in it. Leave them out, and pass apiKey.",
        { code: "invalid_config", param: "baseURL" },
      );
    }
    if (parsed.protocol === "http:" || parsed.protocol === "https:") return parsed;
  } catch (error) {
    if (HoneError.isInstance(error)) throw error;
    // Said below.
  }
  throw new HoneError(
    `"${url}" is not an http or https URL. Give one such as http://127.0.0.1:7777 or https://api.openai.com/v1.`,
    { code: "invalid_config", param: "baseURL" },
  );
}
