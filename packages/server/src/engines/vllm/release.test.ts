import { pino } from "pino";
import { expect, it } from "vitest";
import { releaseOf } from "./release.ts";

function looked(...versions: (string | Error)[]) {
  const lines: string[] = [];
  const log = pino({ level: "warn" }, { write: (line) => void lines.push(line) });
  const queue = [...versions];
  const release = releaseOf({
    name: "gpu",
    engine: {
      async version() {
        const next = queue.shift();
        if (next instanceof Error) throw next;
        return next ?? null;
      },
    },
    log,
  });
  return { release, lines };
}

it("warns once of a release that Hone was not tested with", async () => {
  const { release, lines } = looked("0.31.2", "0.31.2", "0.32.4");
  expect(release.shown()).toEqual({});
  await release.look();
  await release.look();
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/vLLM 0\.31\.2, and Hone is tested with 0\.32\.0: `hone doctor`/);
  expect(release.shown()).toEqual({ version: "0.31.2" });
  // A patch of the tested release came in its place.
  await release.look();
  expect(lines).toHaveLength(1);
  expect(release.shown()).toEqual({ version: "0.32.4" });
});

it("lets an engine that tells nothing be", async () => {
  const { release, lines } = looked(new Error("404"));
  await release.look();
  expect([release.shown(), lines]).toEqual([{}, []]);
});
