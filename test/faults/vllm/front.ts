import { once } from "node:events";
import {
  createServer,
  request as send,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";

/** Between the server and an engine that joined. It passes everything on, or answers completions without a token. */
export interface Front {
  url: string;
  /** From now on completions are answered with 200 and no token; all else goes on as before. */
  silence(is: boolean): void;
  /** How many completions it has answered so. */
  readonly silenced: number;
  close(): void;
}

/** A whole answer, and a whole stream, in which nothing was sampled. */
const nothing = JSON.stringify({
  choices: [
    {
      ...{ index: 0, text: "", finish_reason: "length", token_ids: [] },
      logprobs: { token_logprobs: [] },
    },
  ],
});

export async function startFront(to: () => { host: string; port: number }): Promise<Front> {
  let isSilent = false;
  let silenced = 0;

  async function answerNothing(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const { stream } = JSON.parse(Buffer.concat(parts).toString()) as { stream?: boolean };
    silenced++;
    const type = stream === true ? "text/event-stream" : "application/json";
    response.writeHead(200, { "content-type": type });
    response.end(stream === true ? `data: ${nothing}\n\ndata: [DONE]\n\n` : nothing);
  }

  function passOn(request: IncomingMessage, response: ServerResponse): void {
    const { method, url: path, headers } = request;
    const onward = send({ ...to(), method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
      // What breaks off behind it breaks off here.
      answer.once("aborted", () => response.destroy());
    });
    onward.once("error", () => response.destroy());
    response.once("close", () => onward.destroy());
    request.pipe(onward);
  }

  const server = createServer((request, response) => {
    if (isSilent && request.url === "/v1/completions") {
      answerNothing(request, response).catch(() => response.destroy());
    } else passOn(request, response);
  }).listen(0, "127.0.0.1");
  server.keepAliveTimeout = 65_000;
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    silence: (is) => void (isSilent = is),
    get silenced() {
      return silenced;
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
