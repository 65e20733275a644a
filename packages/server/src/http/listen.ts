import type { Server } from "node:http";
import { HoneError } from "@hone/core";

/**
 * How many connections may wait while the loop is busy. Beyond that the kernel drops connections, and their
 * clients wait for seconds. The system may allow fewer (`net.core.somaxconn`).
 */
const backlog = 8_192;

/** Resolves with the port that it got. */
export function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((done, fail) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const reason =
        cause.code === "EADDRINUSE"
          ? `Port ${port} on ${host} is taken. Stop what listens there, or choose another port (0 for any free one).`
          : `The server cannot listen on ${host}:${port} (${cause.message}).`;
      fail(new HoneError(reason, { code: "invalid_config", param: "port", cause }));
    });
    server.listen({ port, host, backlog }, () => {
      const address = server.address();
      done(typeof address === "object" && address ? address.port : port);
    });
  });
}
