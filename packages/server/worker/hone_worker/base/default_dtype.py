"""The type that a base computes in where nobody says otherwise."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

#: Parameters from which on a processor gains by bfloat16. A smaller base loses more by rounding than it gains.
LEAST = 100_000_000


def default_dtype(config: Any, device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU and, for a large base, on a processor with instructions for it (AVX512-BF16)."""
    if device.type == "cuda":
        return torch.bfloat16
    if not has_bfloat16():
        return torch.float32
    return torch.bfloat16 if parameters_of(config) >= LEAST else torch.float32


def has_bfloat16() -> bool:
    """Without these instructions torch computes bfloat16 many times slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def parameters_of(config: Any) -> int:
    """As the architecture has them, without the weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(parameter.numel() for parameter in model.parameters())
