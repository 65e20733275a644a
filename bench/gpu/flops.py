"""Model FLOPs of a training step, by one definition (docs/gpu.md), and what share of a card's peak that is.

FLOPs = 4 · P_lin · unique + 6 · P_lora · unique + 4 · V · h · trained + 12 · layers · heads · width · keys

A frozen weight costs a forward and a gradient towards its input, an adapter's also one towards itself; the head works
at trained tokens only. `keys` counts, over all unique tokens, how many each attends to: exact, from the layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hone_worker.packing.pack import TreeLayout

#: Dense bfloat16 of an H100 or H200 (SXM), as NVIDIA gives it.
PEAK = 989e12


@dataclass(frozen=True)
class Sizes:
    linear: int  # parameters of all linear layers but the head
    lora: int  # of an adapter on all of them
    head: int  # vocabulary · hidden
    layers: int
    heads: int
    width: int  # of a head

    @classmethod
    def of(cls, config: Any, rank: int) -> Sizes:
        """Of a Llama-shaped configuration."""
        hidden, inner, width = config.hidden_size, config.intermediate_size, config.head_dim
        query, key = config.num_attention_heads * width, config.num_key_value_heads * width
        linears = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
        linears += [(hidden, inner), (hidden, inner), (inner, hidden)]
        layers = config.num_hidden_layers
        return cls(
            linear=layers * sum(a * b for a, b in linears),
            lora=layers * rank * sum(a + b for a, b in linears),
            head=config.vocab_size * hidden,
            layers=layers,
            heads=config.num_attention_heads,
            width=width,
        )

    def flops(self, *, unique: int, trained: int, keys: int) -> float:
        attention = 12.0 * self.layers * self.heads * self.width * keys
        return (4.0 * self.linear + 6.0 * self.lora) * unique + 4.0 * self.head * trained + attention

    def mfu(self, *, unique: int, trained: int, keys: int, seconds: float, peak: float = PEAK) -> float:
        return self.flops(unique=unique, trained=trained, keys=keys) / seconds / peak


def keys_of(layout: TreeLayout) -> int:
    """Pairs of a token and one that it sees, over a packed row."""
    own = sum((high - low) * (high - low + 1) // 2 for low, high in layout.spans)
    return own + sum((q_high - q_low) * (k_high - k_low) for q_low, q_high, k_low, k_high in layout.blocks)


def keys_of_rows(lengths: list[int]) -> int:
    """The same over plain rows."""
    return sum(length * (length + 1) // 2 for length in lengths)
