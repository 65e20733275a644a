import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;

/** A server on a real socket that answers as the test says: connections drop, statuses follow one another. */
export async function startServer(handler: Handler) {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url: `http://127.0.0.1:${port}`,
    close,
    /** Goes away as one that is killed, until `isOver`, and comes back on the same port. */
    async away(isOver: () => boolean) {
      await close();
      // Where it never is, the test fails by what it expects.
      for (let waited = 0; waited < 10_000 && !isOver(); waited += 10) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    },
  };
}

export function send(response: ServerResponse, body: unknown, status = 200, headers = {}): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

export function sendError(
  response: ServerResponse,
  status: number,
  code: string,
  headers = {},
): void {
  send(response, { error: { message: "no", type: "t", code, param: null } }, status, headers);
}
