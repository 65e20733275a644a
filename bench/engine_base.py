"""For `pnpm bench engine`: an adapter for a base, and where the real model is not there a random one of its size.

engine_base.py adapter BASE OUT        a rank 16 adapter on every linear layer, with B drawn too
engine_base.py random OUT              a Llama of 135M parameters in bfloat16
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.lora import LoraSpec, default_targets
from hone_worker.base.model import load_base
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = Path(__file__).resolve().parents[1] / "models/hone-2048-1m"


def adapter(base_path: str, out: str) -> None:
    base = load_base(base_path, served_name="base")
    weights = fresh_adapter(base.model, LoraSpec(16, 32.0, default_targets(base.model)), 1)
    generator = torch.Generator().manual_seed(1)
    for _a, b in weights.tensors.values():
        b.normal_(0, 0.01, generator=generator)
    Path(out).mkdir(parents=True)
    write_adapter(out, weights, "base")


def random(out: str) -> None:
    """The shape of SmolLM2-135M. The tokenizer is a small one: a benchmark of token ids needs none."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    for file in SMALL.glob("tokenizer*"):
        shutil.copy(file, out)


if __name__ == "__main__":
    {"adapter": adapter, "random": random}[sys.argv[1]](*sys.argv[2:])
