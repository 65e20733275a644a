"""The models that are measured, with random weights, and the work that they are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hone_worker.base.adapter_files import fresh_adapter
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.four_bit import pack_linear_layers
from hone_worker.base.lora import LoraSpec, LoraWeights
from hone_worker.base.model import Base, wrap_base
from hone_worker.packing.attention import register
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

TOKENIZER = Path(__file__).resolve().parents[2] / "models/hone-2048-1m"
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"vocab": 512, "hidden": 64, "inner": 128, "layers": 2, "heads": 4, "keys": 2, "width": 16},
    "0.6b": {
        "vocab": 151936,
        "hidden": 1024,
        "inner": 3072,
        "layers": 28,
        "heads": 16,
        "keys": 8,
        "width": 128,
    },
    "4b": {
        "vocab": 151936,
        "hidden": 2560,
        "inner": 9728,
        "layers": 36,
        "heads": 32,
        "keys": 8,
        "width": 128,
    },
}


def config_of(shape: str, **changes: int) -> Qwen3Config:
    """`changes` are keys of SHAPES: `layers=2` makes a shallow model of the shape."""
    size = {**SHAPES[shape], **changes}
    return Qwen3Config(
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        intermediate_size=size["inner"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["keys"],
        head_dim=size["width"],
        max_position_embeddings=40960,
        tie_word_embeddings=shape != "tiny",
    )


def random_model(config: Qwen3Config, device: str, dtype: torch.dtype, attention: str | None = None) -> Any:
    """Made on the device: a model of 8 GB takes longer to copy than to draw."""
    with torch.device(device):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM._from_config(
            config, dtype=dtype, attn_implementation=attention or register()
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # Larger than a fresh model's: then logprobs differ from token to token, and by what is attended to.
                # Embeddings that are the head too stay small, or each token would only foretell itself.
                outer = "embed" in name or "lm_head" in name
                if parameter.dim() == 2 and not (outer and config.tie_word_embeddings):
                    parameter.normal_(0, (2.0 if outer else 0.5) / parameter.shape[1] ** 0.5)
    return model


def make_base(
    config: Qwen3Config,
    device: str,
    dtype: torch.dtype,
    paths: ComputePaths | None = None,
    *,
    packed: bool = False,
) -> Base:
    """`packed`: with its linear layers in 4 bits."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    model = random_model(config, device, dtype)
    if packed:
        pack_linear_layers(model, torch.device(device))
    return wrap_base(model, tokenizer, "bench", 40960, paths or ComputePaths())


def adapter_of(base: Base, seed: int = 1, rank: int = 16, size: float = 0.01) -> LoraWeights:
    """An adapter as after training: B is not zero."""
    fresh = fresh_adapter(base.model, LoraSpec(rank, 2.0 * rank), seed)
    random = torch.Generator().manual_seed(seed)
    return LoraWeights(
        fresh.spec,
        {p: (a, torch.randn(b.shape, generator=random) * size) for p, (a, b) in fresh.tensors.items()},
    )


@dataclass(frozen=True)
class Sequence:
    ids: list[int]
    sampled: list[int]  # 1 where the policy sampled the token


@dataclass(frozen=True, eq=False)
class Work:
    """One training step: groups of sequences, those of a group compared with one another."""

    name: str
    groups: list[list[Sequence]] = field(repr=False)

    @property
    def sequences(self) -> list[Sequence]:
        return [sequence for group in self.groups for sequence in group]


def works(vocabulary: int, scale: str) -> dict[str, Work]:
    """S1 answers to shared prompts, S2 long conversations, S3 nothing shared, S4 one long row. `scale` tiny or full."""
    full = scale == "full"
    random = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=random).tolist()

    def answered(prompt: list[int], count: int) -> Sequence:
        return Sequence(prompt + ids(count), [0] * len(prompt) + [1] * count)

    def talk(turns: int, asked: int, answer: int) -> Sequence:
        # A whole conversation is one sequence: each turn goes on where the one before ended.
        return Sequence(ids(turns * (asked + answer)), ([0] * asked + [1] * answer) * turns)

    def group(prompt: int, members: int, answer: int) -> list[Sequence]:
        shared = ids(prompt)
        return [answered(shared, answer) for _ in range(members)]

    s1 = [group(192, 8, 64) for _ in range(24)] if full else [group(24, 4, 8) for _ in range(2)]
    s2 = [[talk(20, 141, 64) for _ in range(8)]] if full else [[talk(3, 8, 6) for _ in range(2)]]
    rows, prompt, answer = (16, 512, 512) if full else (4, 16, 16)
    s3 = [[answered(ids(prompt), answer) for _ in range(rows)]]
    # A group of one has no advantage, so a short second sequence is beside the long one.
    s4 = [[answered(ids(1), (16384 if full else 96) - 1), answered(ids(2), 6)]]
    return {name: Work(name, groups) for name, groups in {"S1": s1, "S2": s2, "S3": s3, "S4": s4}.items()}
