"""The model's own matmuls and nothing else: the floor of what a token can cost."""

from __future__ import annotations

import torch

from gpu.shapes import config_of
from gpu.stage import Stage, free_memory, timed


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    tokens = 16384 if stage.full and stage.device == "cuda" else 128
    query, key = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    hidden, inner = config.hidden_size, config.intermediate_size
    joined = {"qkv": (hidden, query + 2 * key), "out": (query, hidden)}
    joined |= {"gate_up": (hidden, 2 * inner), "down": (inner, hidden)}
    total = 0.0
    for name, (wide, out) in joined.items():
        for way, (k, n) in {"forward": (wide, out), "towards the input": (out, wide)}.items():
            x = torch.randn(tokens, k, device=stage.device).to(stage.dtype)
            w = torch.randn(k, n, device=stage.device).to(stage.dtype)
            y = torch.empty(tokens, n, device=stage.device, dtype=stage.dtype)
            seconds = min(timed(lambda x=x, w=w, y=y: torch.mm(x, w, out=y)) for _ in range(5))
            total += seconds * config.num_hidden_layers
            rate = 2 * tokens * k * n / seconds
            stage.tell(kind="own_gemm", of=name, way=way, flops_per_second=rate, k=k, n=n, m=tokens)
            del x, w, y
            free_memory()
    # The head works a chunk of tokens at a time, at half of all tokens.
    chunk = min(2048, tokens)
    x = torch.randn(chunk, hidden, device=stage.device).to(stage.dtype)
    w = torch.randn(config.vocab_size, hidden, device=stage.device).to(stage.dtype)
    logits = x @ w.t()
    head = min(timed(lambda: x @ w.t()) for _ in range(5)) + min(timed(lambda: logits @ w) for _ in range(5))
    stage.tell(kind="own_gemm", of="head", way="both", flops_per_second=4 * chunk * w.numel() / head)
    floor = total / tokens + head / chunk / 2
    stage.tell(kind="gemm_floor", microseconds_per_token=1e6 * floor)
