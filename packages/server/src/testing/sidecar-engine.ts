import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { vllmRelease } from "../setup/vllm-versions.ts";

/** An engine process in small, as a sidecar has one: it reads the adapters it loads, and says which weights answer. */
export interface SidecarEngine {
  url: string;
  /** Adapters by name: the folder, and the token that they say. */
  adapters: Map<string, { root: string; token: number }>;
  /** What it was told, in order. */
  calls: string[];
  /** Between tokens of a stream. @unit ms */
  paceMs: number;
  /** Streams that have begun, and those that were given up before their end. */
  begun: number;
  aborted: number;
  /** Takes no more requests, and ends those that run. */
  close(): void;
}

/** The token that an adapter of these weights says. */
export function tokenOf(weights: Uint8Array): number {
  return 1 + createHash("sha256").update(weights).digest().readUInt16LE(0);
}

export async function startSidecarEngine(base = "base", port = 0): Promise<SidecarEngine> {
  const engine: SidecarEngine = {
    url: "",
    adapters: new Map(),
    calls: [],
    paceMs: 5,
    begun: 0,
    aborted: 0,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };

  function load({ lora_name: name, lora_path: root }: Record<string, string>) {
    if (engine.adapters.has(name!)) return { status: 400, text: "loaded already" };
    const weights = readFileSync(join(root!, "adapter_model.safetensors"));
    engine.adapters.set(name!, { root: root!, token: tokenOf(weights) });
    return { status: 200, text: "" };
  }

  async function complete(body: Record<string, unknown>, response: ServerResponse): Promise<void> {
    const {
      model,
      prompt,
      max_tokens: count,
      stream,
      prompt_logprobs: promptLogprobs,
    } = body as {
      model: string;
      prompt: number[];
      max_tokens: number;
      stream: boolean;
      prompt_logprobs?: number;
    };
    const token = model === base ? 0 : engine.adapters.get(model)?.token;
    if (token === undefined) return void response.writeHead(404).end("no such model");
    const choice = (ids: number[], isLast: boolean) => ({
      choices: [
        {
          ...{ index: 0, text: "", token_ids: ids },
          logprobs: { token_logprobs: ids.map(() => -0.5) },
          finish_reason: isLast ? "length" : null,
          ...(promptLogprobs !== undefined && {
            prompt_logprobs: prompt.map((id, at) =>
              at === 0 ? null : { [id]: { logprob: -0.5 } },
            ),
          }),
        },
      ],
    });
    if (!stream) {
      response.writeHead(200).end(JSON.stringify(choice(Array(count).fill(token), true)));
      return;
    }
    engine.begun++;
    response.once("close", () => void (engine.aborted += response.writableFinished ? 0 : 1));
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let at = 1; at <= count && !response.destroyed; at++) {
      response.write(`data: ${JSON.stringify(choice([token], at === count))}\n\n`);
      await delay(engine.paceMs);
    }
    response.end("data: [DONE]\n\n");
  }

  const server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8").on("data", (part: string) => void (text += part));
    request.on("end", () => {
      if (request.url === "/v1/models") {
        const adapters = [...engine.adapters].map(([id, { root }]) => ({ id, root, parent: base }));
        const data = [{ id: base, parent: null, max_model_len: 512 }, ...adapters];
        response.writeHead(200).end(JSON.stringify({ data }));
        return;
      }
      if (request.url === "/version") {
        response.writeHead(200).end(JSON.stringify({ version: vllmRelease }));
        return;
      }
      if (request.url === "/metrics") {
        response.end("vllm:kv_cache_usage_perc 0.25\nvllm:num_requests_waiting 0\n");
        return;
      }
      const body = JSON.parse(text || "{}") as Record<string, string>;
      if (request.url === "/v1/completions") {
        void complete(body, response);
        return;
      }
      const isLoad = request.url === "/v1/load_lora_adapter";
      engine.calls.push(`${isLoad ? "load" : "unload"} ${body["lora_name"]}`);
      const answer = isLoad ? load(body) : null;
      const wasThere = answer !== null || engine.adapters.delete(body["lora_name"]!);
      response.writeHead(answer?.status ?? (wasThere ? 200 : 404)).end(answer?.text ?? "");
    });
  }).listen(port, "127.0.0.1");
  await once(server, "listening");
  engine.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return engine;
}
