"""The count of FLOPs against one by hand, and against the model's own parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hone_worker.packing.pack import pack
from torch.utils.flop_counter import FlopCounterMode

from gpu.flops import Sizes, keys_of, keys_of_rows
from gpu.shapes import adapter_of, config_of, make_base


def test_keys_are_counted_as_the_mask_shows_them() -> None:
    random = np.random.default_rng(0)
    prompt, history = random.integers(0, 9, 17), random.integers(0, 9, 5)
    sequences = [np.concatenate([prompt, random.integers(0, 9, n)]) for n in (1, 6, 30)]
    sequences += [
        np.concatenate([sequences[1], history, random.integers(0, 9, 8)]),
        random.integers(10, 19, 4),
    ]
    row = pack(sequences)
    seen = sum(int(row.layout.mask(low, high).sum()) for low, high in row.layout.trees)
    assert keys_of(row.layout) == seen
    # Unshared, each token sees what is before it in its sequence.
    assert keys_of_rows([len(s) for s in sequences]) == sum(i + 1 for s in sequences for i in range(len(s)))
    assert seen < keys_of_rows([len(s) for s in sequences])


def test_sizes_are_those_of_the_model() -> None:
    config = config_of("tiny")
    base = make_base(config, "cpu", torch.float32)
    sizes = Sizes.of(config, 16)
    linear = sum(layer.weight.numel() for layer in base.router.layers.values())
    assert sizes.linear == linear
    assert sizes.lora == sum(a.numel() + b.numel() for a, b in adapter_of(base).tensors.values())
    assert sizes.head == base.model.get_output_embeddings().weight.numel()


@pytest.mark.parametrize(
    ("shape", "linear", "head", "lora"),
    [("4b", 3.633e9, 0.389e9, 33.0e6), ("0.6b", 0.440e9, 0.156e9, 10.1e6)],
)
def test_the_shapes_have_the_sizes_that_the_predictions_are_for(
    shape: str, linear: float, head: float, lora: float
) -> None:
    sizes = Sizes.of(config_of(shape), 16)
    assert sizes.linear == pytest.approx(linear, rel=2e-3)
    assert sizes.head == pytest.approx(head, rel=5e-3)
    assert sizes.lora == pytest.approx(lora, rel=2e-3)


def test_the_formula_is_what_a_step_computes() -> None:
    """torch's own count of the matmuls of one row, forward and backward, with the head at every token."""
    config = config_of("tiny", layers=3)
    base = make_base(config, "cpu", torch.float32)
    weights = adapter_of(base).trainable()
    length = 48
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter, base.router.single(weights):
        hidden = base.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        # A first layer's input has no gradient; with one it costs what every other layer costs.
        torch.nn.functional.linear(hidden, base.model.get_output_embeddings().weight).sum().backward()
    sizes = Sizes.of(config, 16)
    counted = counter.get_flop_counts()["Global"]
    matmuls = sum(n for op, n in counted.items() if "attention" not in str(op))
    formula = sizes.flops(unique=length, trained=length, keys=0)
    # Less what the first layer's three projections need not send on.
    query, key = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    first = 2 * length * config.hidden_size * (query + 2 * key) + 3 * 2 * length * config.hidden_size * 16
    assert matmuls == pytest.approx(formula - first, rel=1e-4)  # the rotary angles are a product, too
    attended = sizes.flops(unique=0, trained=0, keys=keys_of_rows([length]))
    assert attended == 12 * 3 * config.num_attention_heads * config.head_dim * length * (length + 1) / 2
