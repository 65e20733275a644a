"""Compares an engine's logprobs with a PEFT forward of the same weights in fp32.

Standard input: {base, cases: [{adapter: folder or null, prompt, ids, logprobs, temperature}]}.
Standard output: {mean, max, tokens}, of the absolute differences.
"""

from __future__ import annotations

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    work = json.load(sys.stdin)
    models: dict[str | None, torch.nn.Module] = {}
    differences = []
    for case in work["cases"]:
        adapter = case["adapter"]
        if adapter not in models:
            model = AutoModelForCausalLM.from_pretrained(work["base"], dtype=torch.float32)
            models[adapter] = (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()
        prompt, ids = case["prompt"], case["ids"]
        logits = models[adapter](input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0]
        scaled = logits[len(prompt) - 1 : -1].double() / (case["temperature"] or 1.0)
        expected = scaled.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        differences.append((expected - torch.tensor(case["logprobs"]).double()).abs())
    every = torch.cat(differences)
    print(json.dumps({"mean": every.mean().item(), "max": every.max().item(), "tokens": every.numel()}))


main()
