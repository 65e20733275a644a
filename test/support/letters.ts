import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { findEnvironment } from "@hone/server";
import { expect, vi } from "vitest";
import { base, type TestServer } from "./server.ts";

/** Writes one adapter a letter, which says that letter and nothing else, where the server may import it from. */
export async function makeLetters(server: TestServer, letters: string): Promise<void> {
  const folder = join(server.dataDir, "imports");
  await mkdir(folder, { recursive: true });
  const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
  await promisify(execFile)(await findEnvironment(), [at("say_token.py"), base, folder, letters], {
    env: {
      ...process.env,
      PYTHONPATH: at("../../packages/server/worker"),
      HF_HUB_OFFLINE: "1",
    },
  });
}

/** Makes a letter the model's newest policy, and waits until it is served. */
export async function importLetter(
  server: TestServer,
  name: string,
  letter: string,
  step: number,
): Promise<void> {
  const model = await server.hone.model({ name });
  const response = await server.fetch(`/v1/models/${name}/operations`, {
    method: "POST",
    body: JSON.stringify({
      clientToken: `letter-${step}`,
      op: { type: "import", path: join(server.dataDir, "imports", letter) },
    }),
  });
  expect(response.status, await response.clone().text()).toBeLessThan(300);
  await vi.waitFor(async () => expect((await model.info()).served).toBe(step), {
    interval: 20,
    timeout: 120_000,
  });
}

/** A model that goes on until its last token is allowed: time to break something meanwhile. */
export async function makeTalker(server: TestServer, name: string): Promise<void> {
  await makeLetters(server, "a");
  await importLetter(server, name, "a", 1);
}

/** What a text is worth where nothing else is to be said of it: from 0, below 1, another for nearly every other text. */
export function worthOf(text: string): number {
  return (
    (Array.from(text).reduce((sum, letter) => sum + (letter.codePointAt(0) ?? 0), 0) % 97) / 97
  );
}
