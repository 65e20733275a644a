import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { addBitsandbytes } from "./bitsandbytes.ts";
import { findEnvironment } from "./environment.ts";

const said: string[] = [];
const options = { say: (line: string) => void said.push(line) };

beforeEach(() => {
  vi.stubEnv("PIP_INDEX_URL", "http://127.0.0.1:1/simple");
  vi.stubEnv("PIP_EXTRA_INDEX_URL", "");
  vi.stubEnv("PIP_FIND_LINKS", "");
  vi.stubEnv("PIP_RETRIES", "0");
  vi.stubEnv("PIP_NO_CACHE_DIR", "1");
});
afterEach(() => vi.unstubAllEnvs());

it("needs no index where the pinned version is there, as in the environment of the tests", async () => {
  await addBitsandbytes(process.env["HONE_PYTHON"] ?? (await findEnvironment()), options);
  expect(said).toEqual([expect.stringContaining("requirements/bitsandbytes.txt")]);
});

it("says why it could not be installed", async () => {
  vi.stubEnv("PIP_IGNORE_INSTALLED", "1");
  const python = process.env["HONE_PYTHON"] ?? (await findEnvironment());
  await expect(addBitsandbytes(python, options)).rejects.toThrow(
    /bitsandbytes==0[^]*check the network, or pip's index settings/,
  );
});
