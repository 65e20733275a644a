import { setMaxListeners } from "node:events";
import { withServer, type McpServer, type RunningServer } from "./mcp-server.ts";

interface Lent {
  users: number;
  running: Promise<RunningServer>;
  end(): void;
}

const idleMs = 5000;
const lent = new Map<McpServer, Lent>();

/** As `withServer`, but with one process for all who use it at the same time. It ends 5 s after the last of them. */
export async function withSharedServer<Result>(
  server: McpServer,
  signal: AbortSignal,
  use: (running: RunningServer) => Promise<Result>,
): Promise<Result> {
  signal.throwIfAborted();
  const one = lent.get(server) ?? start(server);
  lent.set(server, one);
  one.users += 1;
  try {
    return await use(await one.running);
  } catch (error) {
    // It may be the server that failed: who comes next gets another one.
    if (lent.get(server) === one) lent.delete(server);
    throw error;
  } finally {
    one.users -= 1;
    setTimeout(() => {
      if (one.users > 0) return;
      if (lent.get(server) === one) lent.delete(server);
      one.end();
    }, idleMs);
  }
}

function start(server: McpServer): Lent {
  const { signal } = new AbortController();
  setMaxListeners(0, signal); // a listener for each call under way
  let end = () => {};
  const over = new Promise<void>((resolve) => (end = resolve));
  const running = new Promise<RunningServer>((resolve, reject) => {
    withServer(server, signal, (one) => {
      resolve(one);
      return over;
    }).catch(reject);
  });
  return { users: 0, running, end };
}
