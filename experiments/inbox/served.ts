import { Hone } from "@hone/client";
import { findEnvironment, startServer } from "@hone/server";
import { setUpModel } from "../../packages/server/src/setup/models.ts";

/** SmolLM2 on a server of its own while `work` runs. In float32, so that no processor gives other figures. */
export async function withSmollm2<Result>(
  dataDir: string,
  work: (hone: Hone) => Promise<Result>,
): Promise<Result> {
  const say = (text: string): void => console.log(text);
  const { folder } = await setUpModel("smollm2", await findEnvironment(), { say });
  const server = await startServer({ base: folder, dataDir, dtype: "float32" });
  try {
    return await work(new Hone({ baseURL: server.url, apiKey: server.key }));
  } finally {
    await server.close();
  }
}
