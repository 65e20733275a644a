// A child that streams as vLLM does, and shows in its metrics no request and no step. Of a request it sends a first token,
// and the rest at once, or never where HOLDS is set. It lists the base that it was started with.
import { createServer } from "node:http";

const holds = process.env["HOLDS"] !== undefined;
const page = "vllm:num_requests_running 0.0\nvllm:iteration_tokens_total_count 7.0\n";
const name = process.argv[process.argv.indexOf("--served-model-name") + 1];
const models = { data: [{ id: name, parent: null, max_model_len: 512 }] };
const event = (finish) => {
  const choice = { index: 0, text: "a", token_ids: [1], logprobs: { token_logprobs: [-1] } };
  return `data: ${JSON.stringify({ choices: [{ ...choice, finish_reason: finish }] })}\n\n`;
};

const server = createServer((request, response) => {
  request.resume();
  if (request.url === "/metrics") {
    response.end(page);
    return;
  }
  if (request.url === "/v1/models") {
    response.end(JSON.stringify(models));
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(event(null));
  if (!holds) response.end(`${event("stop")}data: [DONE]\n\n`);
});
server.listen(0, "127.0.0.1", () => {
  const ready = { ready: true, port: server.address().port, boot: process.env["HONE_BOOT_ID"] };
  console.log(JSON.stringify(ready));
});
process.stdin.on("end", () => process.exit(0)).resume();
