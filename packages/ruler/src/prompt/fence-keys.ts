const encoder = new TextEncoder();

export interface FenceKeys {
  /** Stands on every fence line of the prompt. */
  fence: string;
  /** The attempts' ids, in the order of `contents`. */
  ids: string[];
}

/**
 * The fence of a group and the ids of its attempts: from an HMAC of what they say. The same group
 * gives the same prompt, whatever the order of its members, so that caches hit. A text that holds
 * its own fence or id would have to know the secret.
 */
export async function fenceKeys(
  secret: string,
  rubric: string,
  contents: readonly string[],
): Promise<FenceKeys> {
  const key = await crypto.subtle.importKey(
    "raw",
    encoder.encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const mac = async (text: string): Promise<string> =>
    hex(await crypto.subtle.sign("HMAC", key, encoder.encode(text)));
  const group = await mac(JSON.stringify(["group", rubric, [...contents].sort()]));
  const macs = await Promise.all(contents.map((text) => mac(JSON.stringify(["id", group, text]))));
  // Longer where two would be the same.
  let digits = 8;
  while (new Set(macs.map((text) => text.slice(0, digits))).size < macs.length) digits += 4;
  return { fence: group.slice(0, 16), ids: macs.map((text) => text.slice(0, digits)) };
}

export async function sha256(text: string): Promise<string> {
  return hex(await crypto.subtle.digest("SHA-256", encoder.encode(text)));
}

function hex(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
