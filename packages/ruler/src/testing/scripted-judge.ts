import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { readJudgePrompt } from "./judge-prompt.ts";
import { answer } from "./judge-steps.ts";
import type { JudgeStep, StepUsage } from "./judge-steps.ts";

export interface JudgeRequest {
  /** The request's body. */
  body: { model: string; messages: { role: string; content?: unknown }[] } & Record<
    string,
    unknown
  >;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  /** On the clock of `performance.now()`. */
  receivedAt: number;
}

export interface ScriptedJudgeOptions {
  /** Steps for the first requests, in order. */
  script?: readonly JudgeStep[] | undefined;
  /** What follows the script. Without it a further request is an error, which `close` reports. */
  otherwise?: JudgeStep | undefined;
  /** The key that it wants. @default "test-key" */
  apiKey?: string | undefined;
}

/** A judge that does what it is told: a real HTTP server with OpenAI's chat completions. */
export class ScriptedJudge {
  readonly requests: JudgeRequest[] = [];
  /** For `rulerScoreGroup(group, judge.endpoint)`. */
  readonly endpoint: { baseURL: string; apiKey: string; model: string };
  readonly #close: () => Promise<void>;
  readonly #left: JudgeStep[];
  readonly #unexpected: string[] = [];

  private constructor(
    endpoint: ScriptedJudge["endpoint"],
    left: JudgeStep[],
    close: () => Promise<void>,
  ) {
    this.endpoint = endpoint;
    this.#left = left;
    this.#close = close;
  }

  static async start(options: ScriptedJudgeOptions = {}): Promise<ScriptedJudge> {
    const apiKey = options.apiKey ?? "test-key";
    const left = [...(options.script ?? [])];
    // No request comes before its address is known.
    let judge: ScriptedJudge;
    const server = createServer((request, response) => {
      void judge.#serve(request, response, apiKey, options.otherwise).catch(() => {
        response.destroy();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    judge = new ScriptedJudge(
      { baseURL: `http://127.0.0.1:${port}/v1`, apiKey, model: "scripted" },
      left,
      async () => {
        server.closeAllConnections();
        await new Promise<void>((resolve) => server.close(() => resolve()));
      },
    );
    return judge;
  }

  /** Fails where requests came that no step was for, or steps are left that no request came for. */
  assertDone(): void {
    if (this.#unexpected.length > 0) throw new Error(this.#unexpected.join("\n"));
    if (this.#left.length === 0) return;
    const names = this.#left.map(({ type }) => type).join(", ");
    throw new Error(`The scripted judge has ${this.#left.length} steps left: ${names}.`);
  }

  async close(): Promise<void> {
    await this.#close();
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    apiKey: string,
    otherwise: JudgeStep | undefined,
  ): Promise<void> {
    const receivedAt = performance.now();
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (request.method !== "POST" || request.url !== "/v1/chat/completions") {
      sendError(response, 404, "not_found", `No route ${request.method} ${request.url}.`);
      return;
    }
    if (request.headers.authorization !== `Bearer ${apiKey}`) {
      sendError(response, 401, "invalid_api_key", "The key is wrong.");
      return;
    }
    const body = JSON.parse(Buffer.concat(chunks).toString("utf8")) as JudgeRequest["body"];
    this.requests.push({ body, headers: request.headers, receivedAt });
    const step = this.#left.shift() ?? otherwise;
    if (!step) {
      const message = `Request ${this.requests.length} to the scripted judge: no step is left.`;
      this.#unexpected.push(message);
      sendError(response, 400, "unexpected_request", message);
      return;
    }
    await perform(step, body, response);
  }
}

async function perform(
  step: JudgeStep,
  body: JudgeRequest["body"],
  response: ServerResponse,
): Promise<void> {
  switch (step.type) {
    case "silence":
      return;
    case "silent-body": {
      response.writeHead(200, { "content-type": "application/json" });
      response.flushHeaders();
      if (!step.blankLines) return;
      const timer = setInterval(() => response.write("\n"), 20);
      response.on("close", () => clearInterval(timer));
      return;
    }
    case "hang-up":
      response.destroy();
      return;
    case "cut-body": {
      response.writeHead(200, { "content-type": "application/json", "content-length": "4096" });
      response.write('{"id":"chatcmpl-1","object":"chat.completion","choices":[{"mess');
      setTimeout(() => response.destroy(), 5);
      return;
    }
    case "error":
      if (step.inBody) {
        const error = { code: step.status, type: step.code, message: step.message ?? "Scripted." };
        response.writeHead(200, { "content-type": "application/json", ...step.headers });
        response.end(JSON.stringify({ id: "gen-scripted", error }));
        return;
      }
      sendError(
        response,
        step.status,
        step.code ?? "error",
        step.message ?? "Scripted.",
        step.headers,
      );
      return;
    case "text": {
      if (step.delayMs) await delay(step.delayMs, response);
      const { content } = step;
      const text = typeof content === "string" ? content : content(readJudgePrompt(body.messages));
      sendCompletion(response, body, text, {
        finishReason: step.finishReason,
        refusal: step.refusal,
      });
      return;
    }
    case "score": {
      if (step.delayMs) await delay(step.delayMs, response);
      const text = answer(readJudgePrompt(body.messages), step.scorer);
      sendCompletion(response, body, text, { usage: step.usage });
      return;
    }
    default:
      step satisfies never;
  }
}

async function delay(ms: number, response: ServerResponse): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    response.on("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function sendError(
  response: ServerResponse,
  status: number,
  code: string,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ error: { message, type: code, code, param: null } }));
}

function sendCompletion(
  response: ServerResponse,
  body: JudgeRequest["body"],
  content: string,
  options: {
    finishReason?: string | undefined;
    refusal?: string | undefined;
    usage?: StepUsage | null | undefined;
  },
): void {
  // Four characters a token: what it says of its usage is not measured.
  const promptTokens =
    options.usage?.promptTokens ?? Math.ceil(JSON.stringify(body.messages).length / 4);
  const completionTokens = options.usage?.completionTokens ?? Math.ceil(content.length / 4);
  response.writeHead(200, { "content-type": "application/json" });
  response.end(
    JSON.stringify({
      id: "chatcmpl-scripted",
      object: "chat.completion",
      created: Math.floor(Date.now() / 1000),
      model: body.model,
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: options.refusal ? null : content,
            refusal: options.refusal ?? null,
          },
          logprobs: null,
          finish_reason: options.finishReason ?? "stop",
        },
      ],
      ...(options.usage !== null && {
        usage: {
          prompt_tokens: promptTokens,
          completion_tokens: completionTokens,
          total_tokens: promptTokens + completionTokens,
          prompt_tokens_details: { cached_tokens: options.usage?.cachedTokens ?? 0 },
        },
      }),
    }),
  );
}
