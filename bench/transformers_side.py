"""transformers as an engine for `pnpm bench engine`: `generate` and `generate_batch`, with a PEFT adapter.

POST {"method": "generate" | "generate_batch", "prompts": [[ids]], "max_tokens": n} answers {"ids": [[ids]]}.
Started as every child of the server is: a ready line on standard output, the key in HONE_WORKER_KEY, the end
with standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    GenerationConfig,
)
from transformers.utils import logging


def load(base: str, adapter: str, dtype: str) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    # What a configuration leaves open is filled from here: the number of tokens is fixed.
    model.generation_config.eos_token_id = None
    return PeftModel.from_pretrained(model, adapter).eval()


def generate(model: PeftModel, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """All rollouts of a turn in one batch; they are as long as one another, so nothing is padded."""
    ids = torch.tensor(prompts)
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.inference_mode():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return out[:, ids.shape[1] :].tolist()


def generate_batch(model: PeftModel, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Continuous batching with its prefix sharing; the manager and its cache live from turn to turn."""
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_tokens,
        eos_token_id=-1,
        pad_token_id=0,
    )
    # Small blocks, so that histories which grow by some tens of tokens share them too.
    batching = ContinuousBatchingConfig(block_size=32, num_blocks=1024, max_batch_tokens=2048)
    out = model.get_base_model().generate_batch(
        inputs=prompts,
        generation_config=config,
        continuous_batching_config=batching,
        persistent_manager=True,
    )
    answers = [
        o.generated_tokens for o in sorted(out.values(), key=lambda o: int(o.request_id.split("_")[-1]))
    ]
    if len(answers) != len(prompts):
        raise RuntimeError(f"generate_batch answered {len(answers)} of {len(prompts)} prompts")
    return answers


METHODS = {"generate": generate, "generate_batch": generate_batch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("base", "adapter", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    threading.Thread(target=_end_with_starter, daemon=True).start()
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    model = load(options.base, options.adapter, options.dtype)
    key = f"Bearer {os.environ['HONE_WORKER_KEY']}"

    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0: a connection kept open would keep this one thread from the next.
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != key:
                self.send_error(401)
                return
            ids = METHODS[body["method"]](model, body["prompts"], body["max_tokens"])
            data = json.dumps({"ids": ids}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    boot = os.environ.get("HONE_BOOT_ID", "")
    print(json.dumps({"ready": True, "port": server.server_address[1], "boot": boot}), flush=True)
    server.serve_forever()


def _end_with_starter() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
