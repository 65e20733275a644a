import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";

/** The newest policy of a quickstart's run that is through, and the data of its server. Throws where it has none. */
export async function policyOfRun(run: string): Promise<{ policy: string; data: string }> {
  const out = resolve(run);
  const data = join(out, "server");
  if (!existsSync(data)) {
    throw new Error(
      `${out} is no folder of a quickstart's run: it has no server data. Name one that \`npm run quickstart -- inbox --out FOLDER\` has made.`,
    );
  }
  const file = join(out, "summary.json");
  const summary = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause;
    throw new Error(
      `The run in ${out} is not through: it has no summary.json. Let it end by \`npm run quickstart -- --resume ${out}\`, and ask its policy then.`,
      { cause },
    );
  });
  const { policy } = JSON.parse(summary) as { policy: string };
  return { policy, data };
}
