export { startServer } from "./compose.ts";
export type { RunningServer, ServerOptions } from "./compose.ts";
export { findEnvironment } from "./setup/environment.ts";
