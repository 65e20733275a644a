import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeGroups } from "@hone/client";
import { score, ScriptedJudge } from "@hone/ruler/testing";
import { afterEach, beforeEach, expect, it, onTestFinished, vi } from "vitest";
import { groupsOf } from "../doctor/outputs.test-support.ts";
import { judgeDoctorCommand } from "./judge-doctor-command.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-doctor-"));
  await writeGroups(
    join(folder, "groups.jsonl"),
    groupsOf({ groups: 10, outputs: 4, within: 0.2, between: 0.2, seed: 1 }),
  );
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

const signal = new AbortController().signal;

it("examines judges of several kinds on recorded groups, and exits with 1 where one cannot teach", async () => {
  const judge = await ScriptedJudge.start({ otherwise: score(() => 0.5) });
  onTestFinished(() => judge.close());
  vi.stubEnv("JUDGE_API_KEY", judge.endpoint.apiKey);
  const said: string[] = [];
  vi.spyOn(console, "log").mockImplementation((text: string) => void said.push(text));
  const own = join(folder, "judge.mjs");
  await writeFile(
    own,
    "export const knows = (outputs) => outputs.map(({ metrics }) => metrics.quality);\n",
  );
  const out = join(folder, "report.json");
  const names = `${judge.endpoint.baseURL}#scripted,${own}#knows`;
  const recorded = ["--groups", join(folder, "groups.jsonl"), "--judges", names];
  expect(await judgeDoctorCommand([...recorded, "--scenarios", "8", "--out", out], signal)).toBe(1);
  expect(said.join("\n")).toMatch(/verdict +fail +good\n/);
  expect(said.join("\n")).toMatch(/cannot teach as it is\.\n {2}- Little of the variance/);
  const { judges, groups } = JSON.parse(await readFile(out, "utf8")) as {
    judges: { judge: string; accuracy: { value: number } }[];
    groups: number;
  };
  expect(groups).toBe(8);
  expect(judges.map(({ accuracy }) => accuracy.value)).toEqual([0, 1]);
  expect(await judgeDoctorCommand([...recorded.with(3, `${own}#knows`)], signal)).toBe(0);
});

it.each([
  [["--judges", "./nowhere.ts"], /nowhere\.ts cannot be loaded/],
  [["--judges", "http://127.0.0.1:1/v1"], /names no model/],
  [["--judges", "rm:"], /names no reward model/],
  [["--judges", "rm:helpful"], /Give --task, or --groups/],
])("says what is wrong before anything is played: %j", async (args, message) => {
  await expect(judgeDoctorCommand(args, signal)).rejects.toThrow(message);
});

it("says that the server does not know a judge before anything is played", async () => {
  const asked: string[] = [];
  const unknown = { message: "There is no such one.", type: "invalid_request_error", param: null };
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(404, { "content-type": "application/json" });
    response.end(JSON.stringify({ error: { ...unknown, code: "model_not_found" } }));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  onTestFinished(() => void server.close());
  vi.stubEnv("HONE_URL", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv("HONE_API_KEY", "a-key-of-the-test");
  const recorded = ["--groups", join(folder, "groups.jsonl"), "--judges"];
  for (const name of ["hone/nobody", "rm:nobody", "pointwise:nobody", "pairwise:nobody@2"]) {
    await expect(judgeDoctorCommand([...recorded, name], signal), name).rejects.toMatchObject({
      code: "model_not_found",
    });
  }
  expect(asked).toHaveLength(4);
});
