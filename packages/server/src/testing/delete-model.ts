// delete-model.ts DATA_DIR MODEL: a server that deletes the model and ends, for tests that kill it meanwhile.
import process from "node:process";
import { adapterList, fileTrainer, openTestState } from "./fixtures.ts";

const [dataDir = "", model = ""] = process.argv.slice(2);
const engine = adapterList();
const server = await openTestState(dataDir, { engine: () => engine, trainer: fileTrainer() });
const { status } = await server.call("DELETE", `/v1/models/${model}`);
// The rest goes on until the fault strikes. A limit for one that does not.
await new Promise((resolve) => setTimeout(resolve, 60_000));
await server.state.close();
process.exit(status === 200 ? 0 : 1);
