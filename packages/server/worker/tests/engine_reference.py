"""The oracle: PEFT's own forward over the whole sequence, no cache, no batch, and plain log-softmax."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def reference_logits(base: Path, adapter: Path | None, prompt: list[int], sampled: list[int]) -> torch.Tensor:
    """[sampled, vocab]: the logits that each sampled token was drawn from."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + sampled])).logits[0]
    return logits[len(prompt) - 1 : -1].float()


def reference_logprobs(
    base: Path, adapter: Path | None, prompt: list[int], sampled: list[int], temperature: float = 1.0
) -> torch.Tensor:
    logits = reference_logits(base, adapter, prompt, sampled) / (temperature or 1.0)
    return logits.log_softmax(-1).gather(1, torch.tensor(sampled).unsqueeze(1)).squeeze(1)
